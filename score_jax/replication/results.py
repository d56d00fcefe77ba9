"""Reads what the rows of a replication left in its work directory.

    WORKDIR/<row>/seed<S>/row.json                      there once the seed is finished
    WORKDIR/<row>/seed<S>/eval_greedy/records.jsonl     one record a problem; so the other kinds
    WORKDIR/<row>/error.txt                             why the row failed, if it did

An evaluation of S seeds is a matrix x_SN for each metric, the same N problems in each seed, so that
an interval can hold both sources of noise.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from score_jax.analysis.edits import edit_distance_ratio
from score_jax.analysis.statistics import (
  RATIOS,
  crossed_interval,
  crossed_ratio,
  crossed_share,
  per_problem,
)
from score_jax.replication.rows import EVALUATIONS, ReplicationRow
from score_jax.replication.whole import counts_of, file_of, read_told, read_whole, training_records

KINDS = tuple(kind for kind in EVALUATIONS if kind != 'votes')


@dataclasses.dataclass(frozen=True)
class Outcome:
  """One evaluation of one seed.

  Attributes:
    ids: of the N problems.
    levels: of the N problems.
    values: f64[N] by metric: each turn's `acc_tK`, and those that compare the last two turns, see
      `score_jax.analysis.statistics.per_problem`.
    edit_ratio: f64[N], how far the second answer lies from the first.
  """

  ids: tuple
  levels: tuple
  values: dict[str, np.ndarray]
  edit_ratio: np.ndarray

  @functools.cached_property
  def position(self) -> dict[Any, int]:
    """Where each problem stands, by its id."""
    return {problem: n for n, problem in enumerate(self.ids)}


@dataclasses.dataclass(frozen=True)
class Result:
  """What is known of one row.

  Attributes:
    row: which one.
    seeds: `row.json` of each finished seed.
    status: '' if at least one seed is finished, else why there are no numbers.
    unfinished: what became of the seeds that are wanted and not finished, '' if there are none.
    outcomes: kind of evaluation -> seed -> what it found; without evaluations that are not whole.
    training: seed -> the records of the training metrics; without the seeds that have none.
    votes: seed -> the records of votes.jsonl; without the seeds that have none.
    wanted: the seeds that the row should have.
    damaged: what is not whole of finished seeds, a text each.
  """

  row: ReplicationRow
  seeds: dict[int, dict]
  status: str
  unfinished: str
  outcomes: dict[str, dict[int, Outcome]]
  training: dict[int, list[dict]]
  votes: dict[int, list[dict]]
  wanted: tuple[int, ...] = ()
  damaged: tuple[str, ...] = ()

  @property
  def state(self) -> str:
    """What is to be known of the row, 'finished' if that is all."""
    return self.status or '; '.join(filter(None, [self.unfinished, *self.damaged])) or 'finished'

  def lacks(self, kind: str) -> list[int]:
    """The wanted seeds without an evaluation of a kind, 'votes' and 'training' among them."""
    have = {'votes': self.votes, 'training': self.training}.get(kind, self.outcomes.get(kind))
    return [seed for seed in self.wanted if seed not in have]


def make_outcome(records: Sequence[Mapping]) -> Outcome:
  """Turns an evaluation's records into numbers.

  Args:
    records: of `score_jax.evaluation.evaluate.Evaluation`, at least one.

  Returns:
    The numbers, problem by problem.
  """
  reward_NK = np.asarray([r['rewards'] for r in records], float)
  values = {name: np.asarray(x, float) for name, x in per_problem(records).items()}
  values |= {f'acc_t{k + 1}': reward_NK[:, k] for k in range(reward_NK.shape[1])}
  return Outcome(
    ids=tuple(r['id'] for r in records),
    levels=tuple(r['level'] for r in records),
    values=values,
    edit_ratio=np.asarray([edit_distance_ratio(*r['answers'][:2]) for r in records]),
  )


def read_result(workdir: epath.Path, row: ReplicationRow, seeds: Sequence[int]) -> Result:
  """Reads one row.

  Args:
    workdir: of the replication.
    row: which one.
    seeds: of the replication, of which the row may have fewer; what others left counts, too.

  Returns:
    What its finished seeds left; with a status in words if there are none. What is not whole is
    left out and named.
  """
  begun = {}
  folder = workdir / row.name
  for path in folder.iterdir() if folder.exists() else ():
    if path.name.startswith('seed') and path.name[4:].isdigit():
      begun[int(path.name[4:])] = path
  finished = {s: begun[s] for s in sorted(begun) if (begun[s] / 'row.json').exists()}
  told = {seed: read_told(path) for seed, path in finished.items()}
  found, damaged = {kind: {} for kind in EVALUATIONS}, []
  training = {}
  for seed, path in finished.items():
    counts = counts_of(told[seed], EVALUATIONS)
    for kind in EVALUATIONS:
      if kind in row.evaluations or (path / file_of(kind)).exists():
        try:
          found[kind][seed] = read_whole(path, kind, counts[kind])
        except ValueError as error:
          damaged.append(str(error).removeprefix(f'{folder}/'))
    try:
      records = training_records(path)
    except ValueError as error:
      damaged.append(str(error).replace(f'{folder}/', ''))
      continue
    # Earlier versions did not say how many: their last one does.
    if len(records) < (count := told[seed].get('updates', records[-1]['step'] if records else 0)):
      damaged.append(f'{path.name}/metrics has {len(records)} of {count} updates')
    elif records:
      training[seed] = records
  wanted = sorted({*seeds[: row.seeds or None], *begun})
  unfinished = _unfinished(folder, [seed for seed in wanted if seed not in finished])
  why_nothing = unfinished if begun or 'failed' in unfinished else 'not finished'
  if row.not_applicable:
    why_nothing = f'not applicable: {row.not_applicable}'
  return Result(
    row=row,
    seeds=told,
    status='' if finished else why_nothing,
    unfinished=unfinished,
    outcomes={kind: {s: make_outcome(r) for s, r in found[kind].items()} for kind in KINDS},
    training=training,
    votes=found['votes'],
    wanted=tuple(wanted),
    damaged=tuple(damaged),
  )


def _unfinished(folder: epath.Path, seeds: Sequence[int]) -> str:
  """Says what became of the seeds that are wanted and not finished."""
  error = folder / 'error.txt'
  if error.exists():
    lines = [line.strip() for line in error.read_text().split('\n') if line.strip()]
    return f'failed: {lines[-1] if lines else "error.txt is empty"}'
  return f'not finished: seed {", ".join(map(str, seeds))}' if seeds else ''


def read_results(
  workdir: epath.Path, rows: Sequence[ReplicationRow], seeds: Sequence[int] | None = None
) -> dict[str, Result]:
  """Reads every row.

  Args:
    workdir: of the replication.
    rows: in the order of the report.
    seeds: that were asked for; None takes those that any of the rows has begun.

  Returns:
    By name, in that order.

  Raises:
    ValueError: if two rows have one name.
  """
  names = [row.name for row in rows]
  twice = sorted({name for name in names if names.count(name) > 1})
  if twice:
    raise ValueError(f'each row of a report needs a name of its own; there twice: {twice}')
  if seeds is None:
    paths = [path for name in names for path in (workdir / name).glob('seed*')]
    seeds = sorted({int(path.name[4:]) for path in paths if path.name[4:].isdigit()})
  return {row.name: read_result(workdir, row, seeds) for row in rows}


def aligned(sides: Sequence[Sequence[Outcome]], key: str) -> list[np.ndarray]:
  """Lays several rows' numbers side by side, problem by problem.

  Args:
    sides: for each row, the outcomes of its seeds.
    key: of a metric.

  Returns:
    f64[S, N] for each row, over the problems that all of them have.

  Raises:
    ValueError: if they have no problem in common.
  """
  everyone = [outcome for side in sides for outcome in side]
  ids = [i for i in everyone[0].ids if all(i in outcome.position for outcome in everyone)]
  if not ids:
    raise ValueError('these evaluations have no problem in common: they cannot be compared')
  return [np.stack([o.values[key][[o.position[i] for i in ids]] for o in side]) for side in sides]


def interval(result: Result | None, kind: str, key: str) -> dict[str, float] | None:
  """Gives one metric of a row with its interval.

  Args:
    result: the row's, or None.
    kind: of evaluation, one of `KINDS`.
    key: of the metric.

  Returns:
    {'mean', 'low', 'high'} as fractions, over seeds and problems; None where there are no numbers.
    The `RATIOS` with their 'denominator', see `score_jax.analysis.statistics.ratio`.
  """
  outcomes = list(result.outcomes[kind].values()) if result else []
  if not outcomes or not all(key in outcome.values for outcome in outcomes):
    return None
  x_SN = aligned([outcomes], key)[0]
  if key in RATIOS:
    return crossed_ratio(x_SN)
  return crossed_interval(x_SN) if key == 'delta' else crossed_share(x_SN)


def difference(
  first: Result | None, second: Result | None, kind: str, key: str
) -> dict[str, float] | None:
  """Compares one metric of two rows on the same problems and the same seeds.

  Args:
    first: a row's result, or None.
    second: of the row to take away from it.
    kind: of evaluation, one of `KINDS`.
    key: of the metric.

  Returns:
    {'mean', 'low', 'high'} of first minus second, as fractions, under 'seeds' and 'problems' how
    many both have, and under 'wanted_seeds' and 'wanted_problems' how many there should be; None if
    both have no seed.
  """
  if not first or not second:
    return None
  ours, theirs = first.outcomes[kind], second.outcomes[kind]
  seeds = [seed for seed in ours if seed in theirs]
  if not seeds:
    return None
  x_SN, y_SN = aligned([[ours[s] for s in seeds], [theirs[s] for s in seeds]], key)
  # Two deltas can lie 2 apart, and an interval is made of numbers up to 1.
  scale = 2 if key == 'delta' else 1
  found = crossed_interval((x_SN - y_SN) / scale)
  counts = {
    'seeds': len(seeds),
    'wanted_seeds': len({*seeds, *first.wanted} & {*seeds, *second.wanted}),
    'problems': x_SN.shape[1],
    'wanted_problems': max(len(o.ids) for side in (ours, theirs) for o in side.values()),
  }
  return {name: scale * x for name, x in found.items()} | counts


def shortfall(found: Mapping[str, float]) -> str:
  """What a `difference` is made of less than there should be, '' where nothing is missing.

  Example:
    >>> shortfall({'seeds': 2, 'wanted_seeds': 3, 'problems': 60, 'wanted_problems': 60})
    ' (2 of 3 seeds)'
  """
  short = [
    f'{found[name]} of {found[f"wanted_{name}"]} {name}'
    for name in ('seeds', 'problems')
    if found[name] < found[f'wanted_{name}']
  ]
  return f' ({", ".join(short)})' if short else ''
