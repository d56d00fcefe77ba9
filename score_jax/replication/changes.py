"""Share of changed answers over training: where it began, its peak, its end, and its curve."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from score_jax.replication.results import Result
from score_jax.replication.rows import ReplicationRow

CHANGED = 'train/changed_t12'
TAIL = 0.1  # of the updates: over how many of them a mean is taken


def changed_shares(result: Result) -> dict[str, float | None]:
  """Where training took the share of episodes whose second final answer is another.

  Args:
    result: a row's; what it starts from was trained by another row, and is not part of it.

  Returns:
    Means over seeds: 'changed_first' of the first update, 'changed_last' of the mean over the last
    tenth of the updates, 'changed_peak' of the greatest mean over any tenth in a row; None where
    nothing was trained.
  """
  runs = [
    [r[CHANGED] for r in records if r.get(CHANGED) is not None]
    for records in result.training.values()
  ]
  found = [_ends(run) for run in runs if run]
  names = ('changed_first', 'changed_last', 'changed_peak')
  means = np.mean(found, axis=0).tolist() if found else [None] * len(names)
  return dict(zip(names, means, strict=True))


def tenth(num_updates: int) -> int:
  """How many updates a tenth of them are, at least one."""
  return max(1, round(TAIL * num_updates))


def _ends(run: Sequence[float]) -> tuple[float, float, float]:
  length = tenth(len(run))
  means = np.convolve(run, np.full(length, 1 / length), mode='valid')
  return run[0], float(means[-1]), float(means.max())


def started_from(row: ReplicationRow, rows: Mapping[str, ReplicationRow]) -> list[ReplicationRow]:
  """The rows that a row's start was trained by, the first one first.

  Args:
    row: the row.
    rows: by name, among which the row's start is looked for.
  """
  if row.init not in rows:
    return []
  return [*started_from(rows[row.init], rows), rows[row.init]]


def curve(
  records_of: Mapping[int, Sequence[Mapping[str, Any]]], keys: Sequence[str]
) -> dict[str, Any] | None:
  """Training metrics over the steps that every seed has.

  Args:
    records_of: seed -> one record an update.
    keys: of the metrics.

  Returns:
    {'steps', metric: {'mean', 'low', 'high'}}; low and high are the least and greatest seed. None
    where there is no such step.
  """
  seeds = [{r['step']: r for r in records} for records in records_of.values()]
  every = seeds[0] if seeds else ()
  steps = [step for step in every if all(_has_all(seed.get(step), keys) for seed in seeds)]
  if not steps:
    return None
  curves = {}
  for key in keys:
    x_ST = np.asarray([[seed[step][key] for step in steps] for seed in seeds], float)
    curves[key] = {'mean': x_ST.mean(0), 'low': x_ST.min(0), 'high': x_ST.max(0)}
    curves[key] = {name: x.tolist() for name, x in curves[key].items()}
  return {'steps': steps} | curves


def _has_all(record: Mapping | None, keys: Sequence[str]) -> bool:
  return record is not None and all(record.get(key) is not None for key in keys)


def _num_updates(result: Result) -> int:
  """What a row's seeds say of their own updates; what it was asked for where none says it."""
  told = [told['updates'] for told in result.seeds.values() if 'updates' in told]
  return max(told, default=result.row.num_steps)


def changed_curves(results: Mapping[str, Result]) -> dict[str, dict]:
  """The share of changed answers of every row that was trained, each after what it starts from.

  Args:
    results: by row name.

  Returns:
    Row -> as `curve`, the steps counted from the first update of the first row of its line; 'start'
    is how many came before its own, and 'after' the row that it starts from, '' for the base model.
  """
  rows, found = {name: result.row for name, result in results.items()}, {}
  for name, result in results.items():
    if shown := curve(result.training, (CHANGED,)):
      before = started_from(result.row, rows)
      start = sum(_num_updates(results[row.name]) for row in before)
      shown['steps'] = [start + step for step in shown['steps']]
      found[name] = shown | {'start': start, 'after': before[-1].name if before else ''}
  return found
