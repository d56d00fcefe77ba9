"""The episodes that a run directory holds, read to be shown."""

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from score_jax.core.jsonl import read_located
from score_jax.runs.files import read_json
from score_jax.runs.identity import CONFIG_FILE
from score_jax.runs.metrics import DIRECTORY, PREFIX
from score_jax.runs.segments import read_left

TRAINING = 'training'
# What an episode has one of for each turn, and of which types.
PER_TURN = {
  'answers': str,
  'rewards': int | float,
  'reasons': str,
  'truncated': bool,
  'finals': str | None,
  'tokens': int,
}
MAY_BE_MISSING = ('finals', 'tokens', 'step', 'level')


def _logs(run: epath.Path) -> list[str]:
  """Names of the logs of episodes: each process of a run writes one of its own."""
  log = run / 'episodes'
  paths = [*log.glob('*-*.jsonl'), *log.glob('*.index.json')] if log.exists() else []
  return sorted({path.name.partition('.')[0].partition('-')[0] for path in paths})


def missing_records(run: epath.PathLike) -> list[str]:
  """Says what a run has lost of what training wrote down: metrics and episodes.

  Args:
    run: the directory.

  Returns:
    A text with path and numbers for each segment that is missing, cut off or damaged, and one
    where there are no metrics at all.
  """
  run = epath.Path(run)
  texts = [f'{run / DIRECTORY} is missing']
  if (run / DIRECTORY).exists():
    texts = read_left(run / DIRECTORY, PREFIX)[1]
  return texts + [text for name in _logs(run) for text in read_left(run / 'episodes', name)[1]]


def read_sources(run: epath.PathLike) -> dict[str, list[dict[str, Any]]]:
  """Reads every episode that a run directory holds as text.

  Args:
    run: the directory.

  Returns:
    Episodes as `page` takes them: under 'training' those that training saved, newest step first,
    and under the name of each evaluation's folder its own, in the order of its problems. Sources
    that are not there are left out, and of training what `missing_records` names.

  Raises:
    ValueError: naming the file, where a line is broken or a record is not an episode.
  """
  run = epath.Path(run)
  found = {}
  log = run / 'episodes'
  trained = []
  for name in _logs(run):
    for line, record in enumerate(read_left(log, name)[0], start=1):
      where = f'{log / name}-*.jsonl, record {line}'
      trained.append(_episode(record, TRAINING, len(trained) + 1, where))
  if trained:
    found[TRAINING] = sorted(trained, key=lambda episode: -episode['step'])
  for path in sorted(run.glob('eval_*/records.jsonl')):
    name = path.parent.name
    found[name] = [
      _episode(record, name, number, where)
      for number, (where, record) in enumerate(read_located(path, (), flag='--run'), start=1)
    ]
  return found


def _episode(record: Mapping[str, Any], source: str, number: int, where: str) -> dict[str, Any]:
  """One record as an episode of the page, checked."""
  record = {'problem': record.get('id'), **record}
  episode = {'source': source, 'number': number}
  for key in ('problem', 'question', 'answer', 'step', 'level', *PER_TURN):
    value = record.get(key)
    if value is None and key not in MAY_BE_MISSING:
      raise ValueError(f'{where}: an episode needs {key!r}; the record has {sorted(record)}')
    if value is not None and key in PER_TURN:
      if not isinstance(value, list) or not all(isinstance(item, PER_TURN[key]) for item in value):
        raise ValueError(f'{where}: {key!r} should be a list of {PER_TURN[key]}, found {value!r}')
    episode[key] = value
  lengths = {key: len(episode[key]) for key in PER_TURN if episode[key] is not None}
  if len(set(lengths.values())) > 1:
    raise ValueError(f'{where}: these should have one entry for each turn: {lengths}')
  return episode


def share_out(sizes: Mapping[str, int], limit: int) -> dict[str, int]:
  """How many episodes of each source fit: all of a small one, equal parts for the others.

  Args:
    sizes: how many each source has.
    limit: how many in all.

  Returns:
    How many of each, no more than it has.

  Example:
    >>> share_out({'training': 96, 'eval_greedy': 2048, 'eval_sampled': 2048}, 2000)
    {'training': 96, 'eval_greedy': 952, 'eval_sampled': 952}
  """
  left, counts = limit, dict.fromkeys(sizes, 0)
  for i, name in enumerate(sorted(sizes, key=sizes.get)):
    counts[name] = min(sizes[name], left // (len(sizes) - i))
    left -= counts[name]
  return counts


def choose(
  sources: Mapping[str, Sequence[dict[str, Any]]], limit: int
) -> tuple[list[dict[str, Any]], list[str]]:
  """Takes as many episodes as the page may hold, and says what was left out.

  Args:
    sources: of `read_sources`.
    limit: how many at most; 0 takes all.

  Returns:
    The episodes, of training the newest and of an evaluation every so many; and sentences that
    say for each source how many are shown and how many are not.
  """
  sizes = {name: len(episodes) for name, episodes in sources.items()}
  counts = share_out(sizes, limit or sum(sizes.values()))
  chosen, notes = [], []
  for name, episodes in sources.items():
    count, size = counts[name], sizes[name]
    if name == TRAINING:
      chosen += episodes[:count]
      which = 'the newest'
    else:
      chosen += [episodes[i * size // count] for i in range(count)]
      which = 'evenly spread over its problems'
    left_out = f', {which}; {size - count:,} left out' if count < size else ''
    notes.append(f'{name}: {count:,} of {size:,} episodes{left_out}.')
  if sum(sizes.values()) > len(chosen):
    notes.append(f'The page holds {limit:,} episodes at most; --limit=0 shows all.')
  return chosen, notes


def describe(run: epath.PathLike) -> list[str]:
  """Says what a run directory is, from its files.

  Args:
    run: the directory.

  Returns:
    Sentences: its stage, task, row and seed, and what share of the training episodes the run
    itself saved; without what no file says.

  Raises:
    ValueError: if one of the files is damaged.
  """
  run = epath.Path(run)

  def read(name):
    path = run / name
    return read_json(path, 'restore it from a copy') if path.exists() else {}

  config, row = read(CONFIG_FILE), read('row.json')
  train, rollout = config.get('train', {}), config.get('rollout', {})
  facts = {
    'stage': config.get('stage', {}).get('name'),
    'task': config.get('task', {}).get('name'),
    'row': row.get('row'),
    'seed': row.get('seed', config.get('seed')),
  }
  said = ', '.join(f'{key} {value}' for key, value in facts.items() if value is not None)
  notes = [f'Run: {said}.'] if said else []
  every, saved = train.get('episodes_every_steps'), train.get('num_saved_problems')
  sampled = rollout.get('problems_per_step')
  if None not in (every, saved, sampled) and (every > 1 or saved < sampled):
    often = 'every step' if every == 1 else f'step 1 and every multiple of {every}'
    notes.append(
      f'Training saved the episodes of {saved} of {sampled} problems, at {often}: of the others it'
      ' kept no text.'
    )
  return notes
