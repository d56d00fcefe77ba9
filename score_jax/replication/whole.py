"""Holds the files of a finished seed against what its `row.json` says that they are.

A report of fewer problems than the row has looks like one of all of them, and other problems can
turn a comparison: what is not whole is left out and named, and evaluated again by the next start.
"""

import json
import logging
from collections.abc import Callable, Iterable, Sequence

from etils import epath

from score_jax.replication.rows import ReplicationRow, seed_dir
from score_jax.runs.files import read_json
from score_jax.runs.metrics import read_metrics


def file_of(evaluation: str) -> str:
  """Where the records of an evaluation lie, seen from the seed's folder."""
  return 'votes.jsonl' if evaluation == 'votes' else f'eval_{evaluation}/records.jsonl'


def read_told(folder: epath.Path) -> dict:
  """What `row.json` says of a finished seed.

  Args:
    folder: of the seed.

  Returns:
    Its facts.

  Raises:
    ValueError: it is damaged; naming it.
  """
  path, advice = folder / 'row.json', 'delete it, and the row is evaluated again'
  told = read_json(path, advice)
  if not isinstance(told, dict) or not isinstance(told.get('records', {}), dict):
    raise ValueError(f'{path} is damaged (it says nothing of a seed): {advice}')
  return told


def read_lines(path: epath.Path) -> list[dict]:
  """Reads a file of JSON lines.

  Args:
    path: the file.

  Returns:
    The records.

  Raises:
    ValueError: naming file and line, where there is no file or a line is not JSON.
  """
  if not path.exists():
    raise ValueError(f'{path} is missing')
  if path.is_dir():
    raise ValueError(f'{path} is a directory: remove it')
  records = []
  for number, line in enumerate(path.read_bytes().split(b'\n'), start=1):
    if line:
      try:
        records.append(json.loads(line))
      except ValueError as error:
        raise ValueError(f'{path}:{number}: not a line of JSON: {error}') from error
  return records


def read_whole(folder: epath.Path, evaluation: str, count: int | None) -> list[dict]:
  """Reads the records of an evaluation that must be whole.

  Args:
    folder: of the seed.
    evaluation: one of `score_jax.replication.rows.EVALUATIONS`.
    count: problems that it has; None where that is not known.

  Returns:
    One record a problem.

  Raises:
    ValueError: with what is missing or damaged.
  """
  path = folder / file_of(evaluation)
  records = read_lines(path)
  turns = [_num_answers(record, evaluation) for record in records]
  for number, count_here in enumerate(turns, start=1):
    if not count_here or (evaluation != 'votes' and not 2 <= count_here == max(turns)):
      raise ValueError(f'{path}:{number}: no record of an evaluation')
  found = len({record['id'] for record in records})
  if found != len(records):
    raise ValueError(f'{path} has {len(records)} records of {found} problems')
  if not found or count not in (None, found):
    raise ValueError(f'{path} has {found} of {"its" if count is None else count} problems')
  return records


def _num_answers(record: object, evaluation: str) -> int:
  """How many answers a record holds, 0 where it is none that a report could be made of."""
  if not isinstance(record, dict) or type(record.get('id')) not in (int, str):
    return 0
  if evaluation == 'votes':
    return min(_num_rewards(record.get(name)) for name in ('parallel', 'sequential'))
  answers, count = record.get('answers'), _num_rewards(record)
  is_text = isinstance(answers, list) and all(isinstance(answer, str) for answer in answers)
  cut = record.get('truncated', [False] * count)  # not every record says it
  is_told = isinstance(cut, list) and len(cut) == count and {*map(type, cut)} <= {bool}
  return count if is_text and is_told and len(answers) == count and 'level' in record else 0


def _num_rewards(record: object) -> int:
  """How many rewards there are, each with a final answer; 0 where they are no rewards."""
  if not isinstance(record, dict):
    return 0
  finals, rewards = record.get('finals'), record.get('rewards')
  if not isinstance(finals, list) or not isinstance(rewards, list) or len(finals) != len(rewards):
    return 0
  is_whole = all(final is None or isinstance(final, str) for final in finals) and all(
    type(reward) in (int, float) and 0 <= reward <= 1 for reward in rewards
  )
  return len(rewards) if is_whole else 0


def training_records(folder: epath.Path) -> list[dict]:
  """The metrics of a seed's training, one record an update; none where nothing was trained.

  Raises:
    ValueError: naming each file of them that is missing, cut off or damaged.
  """
  return [r for r in read_metrics(folder) if r.get('train/reward_t1') is not None]


def counts_of(told: dict, evaluations: Iterable[str]) -> dict[str, int | None]:
  """How many problems each evaluation of a seed has.

  Args:
    told: its `row.json`; earlier ones say it of the held-out problems as a whole.
    evaluations: of the row.

  Returns:
    Number by evaluation, None where it is not known.
  """
  others = ('votes', 'train')
  split = {name: None if name in others else told.get('num_problems') for name in evaluations}
  return split | told.get('records', {})


def what_is_wrong(folder: epath.Path, evaluation: str, count: int | None) -> str:
  """Says what is missing or damaged of an evaluation, '' where it is whole.

  Args:
    folder: of the seed.
    evaluation: one of `score_jax.replication.rows.EVALUATIONS`.
    count: problems that it has; None where that is not known.
  """
  try:
    records = folder / file_of(evaluation)
    read_whole(folder, evaluation, count)
    if evaluation != 'votes':
      read_json(records.parent / 'metrics.json', 'it is evaluated again')
  except FileNotFoundError:
    return f'{records.parent / "metrics.json"} is missing'
  except ValueError as error:
    return str(error)
  return ''


def reopen(
  workdir: epath.Path,
  rows: Sequence[ReplicationRow],
  seeds_of: Callable[[ReplicationRow], Iterable[int]],
) -> list[str]:
  """Makes seeds unfinished again of which something is missing, so that a start repairs them.

  Only `row.json` is removed: what was trained and the evaluations that are whole stay.

  Args:
    workdir: of the replication.
    rows: to look at.
    seeds_of: a row -> its seeds.

  Returns:
    What was wrong, a text for each evaluation; it is said in the log, too.
  """
  wrong = []
  for row in rows:
    for folder in (seed_dir(workdir, row.name, seed) for seed in seeds_of(row)):
      path = folder / 'row.json'
      if row.makes_base or not path.exists():
        continue
      counts = counts_of(read_told(folder), row.evaluations)
      texts = [what_is_wrong(folder, name, count) for name, count in counts.items()]
      if any(texts):
        wrong += filter(None, texts)
        path.unlink()
  for text in wrong:
    logging.getLogger(__name__).warning('%s: it is evaluated again', text)
  return wrong
