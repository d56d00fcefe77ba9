"""The numbers that each figure shows, also for report.json.

Each function takes the results by row name and returns a `Series`; what a row lacks is named there,
so that the report can say which files are missing where a figure cannot be drawn.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from score_jax.analysis.statistics import crossed_interval, crossed_share
from score_jax.analysis.voting import vote_values
from score_jax.replication.changes import changed_shares, curve
from score_jax.replication.results import Result, interval
from score_jax.replication.whole import file_of

CURVES = ('score', 'stage1', 'multiturn_rl', 'last_turn_rl')
BUDGETS = (2, 4, 8, 16, 32)
EDIT_BINS = 20
MAX_CURVES = 7  # in one panel, told apart by colour, marker and line
COLLAPSED_BELOW = 1 / 3  # of the peak, which a row reaches once it has learned to correct
REGIME_KEYS = ('acc_t1', 'acc_t2', 'delta', 'changed', 'e_plus')


@dataclasses.dataclass(frozen=True)
class Series:
  """What a figure shows.

  Attributes:
    data: by row name, plain numbers; empty if no row has what it takes.
    missing: what could not be shown and why, one text a row.
  """

  data: dict[str, Any]
  missing: list[str]


def gather(
  results: Mapping[str, Result],
  names: Sequence[str],
  kind: str,
  get: Callable[[Result], Any],
) -> Series:
  """Asks each row for its part of a figure.

  Args:
    results: by row name.
    names: of the rows to ask.
    kind: of evaluation that the figure is made of, or 'training'.
    get: a row's result -> its part, None or empty if it has none.

  Returns:
    The parts, and the rows and seeds without.
  """
  data, missing = {}, []
  files = 'metrics' if kind == 'training' else file_of(kind)
  for name in names:
    part = get(results[name]) if name in results else None
    if part:
      data[name] = part
      if lacks := results[name].lacks(kind):
        missing.append(f'{results[name].row.title}, seed {", ".join(map(str, lacks))}')
    elif name not in results:
      missing.append(f'{name} (no such row)')
    else:
      why = results[name].status or f'no seed*/{files}'
      missing.append(f'{results[name].row.title} ({why})')
  return Series(data, missing)


def names_of(results: Mapping[str, Result], *groups: str) -> list[str]:
  """The rows of some groups, in the order of the report."""
  return [name for name, result in results.items() if result.row.group in groups]


def metrics(kind: str, keys: Sequence[str], *groups: str) -> Callable[[Mapping], Series]:
  """Makes the series of an evaluation's metrics.

  Args:
    kind: of evaluation.
    keys: of the metrics.
    *groups: of rows.

  Returns:
    Results -> a series of row -> metric -> interval.
  """

  def get(result: Result) -> dict | None:
    found = {key: interval(result, kind, key) for key in keys}
    return found if all(found.values()) else None

  return lambda results: gather(results, names_of(results, *groups), kind, get)


def training(*keys: str) -> Callable[[Mapping], Series]:
  """Makes the series of training metrics.

  Args:
    *keys: of the metrics.

  Returns:
    Results -> a series of row -> {'steps', metric: {'mean', 'low', 'high'}}, over the steps that
    every seed has; low and high are the least and greatest seed.
  """
  return lambda results: gather(
    results, CURVES, 'training', lambda result: curve(result.training, keys)
  )


def edits(results: Mapping[str, Result]) -> Series:
  """How far second answers, sampled at temperature 1, lie from first ones.

  Args:
    results: by row name.

  Returns:
    A series of row -> {'edges', 'shares'}: the share of answers that are the same (first) and of
    those whose edit-distance ratio lies in each bin, above its lower edge, as intervals.
  """
  edges = np.linspace(0, 1, EDIT_BINS + 1)

  def get(result: Result) -> dict | None:
    outcomes = list(result.outcomes['sampled'].values())
    if not outcomes or len({o.ids for o in outcomes}) > 1:
      return None
    ratio_SN = np.stack([o.edit_ratio for o in outcomes])
    members = [ratio_SN == 0]
    members += [
      (ratio_SN > low) & (ratio_SN <= high) for low, high in zip(edges, edges[1:], strict=False)
    ]
    return {'edges': edges.tolist(), 'shares': [crossed_share(m) for m in members]}

  return gather(results, names_of(results, 'method'), 'sampled', get)


def vote_scaling(result: Result, budgets: Sequence[int]) -> dict[int, dict] | None:
  """Accuracy of a majority vote, in parallel and after corrections, over seeds and problems.

  Args:
    result: a row's.
    budgets: answers sampled for a problem.

  Returns:
    Budget -> {'parallel', 'sequential', 'difference'} as intervals; None without votes.
  """
  if not result.votes:
    return None
  seeds = [vote_values(lines, budgets) for lines in result.votes.values()]
  scaled = {}
  for budget in budgets:
    x = {way: np.stack([s[budget][way] for s in seeds]) for way in ('parallel', 'sequential')}
    scaled[budget] = {way: crossed_share(x_SN) for way, x_SN in x.items()}
    scaled[budget]['difference'] = crossed_interval(x['sequential'] - x['parallel'])
  return scaled


def scaling(results: Mapping[str, Result]) -> Series:
  """Inference scaling of SCoRe and of every other row that has votes."""
  names = [n for n, r in results.items() if r.votes or n == 'score'] or ['score']
  return gather(results, names, 'votes', lambda result: vote_scaling(result, BUDGETS))


def many_turns(results: Mapping[str, Result]) -> Series:
  """Accuracy at each turn of the ten-turn evaluation, of the rows that have one."""
  names = [n for n, r in results.items() if r.outcomes['turns']] or ['score']
  too_many = [f'{results[n].row.title} (only {MAX_CURVES} fit)' for n in names[MAX_CURVES:]]

  def get(result: Result) -> list | None:
    accuracies = []
    while found := interval(result, 'turns', f'acc_t{len(accuracies) + 1}'):
      accuracies.append(found)
    return accuracies

  found = gather(results, names[:MAX_CURVES], 'turns', get)
  return Series(found.data, found.missing + too_many)


def fixed_or_own(results: Mapping[str, Result]) -> Series:
  """What turn 2 gains on the base model's first answers, and on a row's own."""

  def get(result: Result) -> dict | None:
    kinds = {'fixed': 'fixed', 'own': 'greedy'}
    found = {name: interval(result, kind, 'delta') for name, kind in kinds.items()}
    return found if all(found.values()) else None

  return gather(results, names_of(results, 'method'), 'fixed', get)


def levels(results: Mapping[str, Result]) -> Series:
  """i->c and c->i by difficulty of the base model and of SCoRe, greedy."""

  def get(result: Result) -> dict | None:
    outcomes = list(result.outcomes['greedy'].values())
    if not outcomes or len({o.ids for o in outcomes}) > 1:
      return None
    level_N = np.asarray([str(level) for level in outcomes[0].levels])
    found = {}
    for level in sorted(set(level_N.tolist()), key=lambda text: (len(text), text)):
      found[level] = {'problems': int((level_N == level).sum())}
      for key in ('i2c', 'c2i'):
        found[level][key] = crossed_share([o.values[key][level_N == level] for o in outcomes])
    return found

  return gather(results, ('base', 'score'), 'greedy', get)


def sweeps(results: Mapping[str, Result], reference: Mapping[str, Any]) -> Series:
  """Greedy metrics of each sweep's rows.

  Args:
    results: by row name.
    reference: sweep -> its value in SCoRe's own row, which then stands among the sweep's rows.

  Returns:
    A series of sweep -> [{'name', 'title', 'value', metrics}], by value where values are numbers.
  """
  keys = ('acc_t1', 'acc_t2', 'delta')
  found = metrics('greedy', keys, 'sweep')(results)
  score = {key: interval(results.get('score'), 'greedy', key) for key in keys}
  data: dict[str, list] = {}
  for name, values in found.data.items():
    row = results[name].row
    entry = {'name': name, 'title': row.title, 'value': row.value} | values
    data.setdefault(row.sweep, []).append(entry)
  for sweep, entries in data.items():
    if sweep in reference and all(score.values()):
      title = f'{results["score"].row.title} ({sweep} {reference[sweep]})'
      entries.insert(0, {'name': 'score', 'title': title, 'value': reference[sweep]} | score)
    if all(is_number(entry['value']) for entry in entries):
      entries.sort(key=lambda entry: entry['value'])
  return Series(data, found.missing)


def is_number(value: Any) -> bool:
  """Whether a sweep's value can stand on an axis of numbers."""
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def regimes(results: Mapping[str, Result]) -> Series:
  """Where training took the share of changed answers in each regime.

  Args:
    results: by row name.

  Returns:
    A series of row -> `changed_shares`; 'collapsed': whether the last is below a third of the peak;
    and the metrics of the evaluation at temperature 1.
  """

  def get(result: Result) -> dict | None:
    ends = changed_shares(result)
    last, peak = ends['changed_last'], ends['changed_peak']
    found = {key: interval(result, 'sampled', key) for key in REGIME_KEYS}
    if last is None or not all(found.values()):
      return None
    return ends | {'collapsed': last < COLLAPSED_BELOW * peak} | found

  return gather(results, names_of(results, 'regime'), 'sampled', get)
