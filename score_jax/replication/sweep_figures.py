"""Draws sweeps: accuracies above, their difference below, one column for each swept quantity."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from score_jax.replication.figures import Titles, bars, legend_above, shorten, subplots
from score_jax.replication.series import is_number

# Series number -> metric -> label; the difference has a colour of its own, in panels of its own.
ACCURACIES = {'acc_t1': 'accuracy at turn 1', 'acc_t2': 'accuracy at turn 2'}
DELTA = {'delta': 'Δ(t1,t2): turn 2 minus turn 1'}
MAX_COLUMNS = 3
AXIS_RATIO = 5


def is_numeric(entries: Sequence[Mapping]) -> bool:
  """Whether a sweep is over numbers, at least two of them, and so gets an axis of numbers."""
  return len(entries) > 1 and all(is_number(entry['value']) for entry in entries)


def set_scale(axis: Axes, values: Sequence[float]) -> None:
  """Spaces a sweep's values: by ratio where they span more than five-fold, with room for a 0."""
  positive = [x for x in values if x > 0]
  if min(values) >= 0 and len(positive) > 1 and max(positive) > AXIS_RATIO * min(positive):
    if min(values) > 0:
      axis.set_xscale('log')
    else:
      axis.set_xscale('symlog', linthresh=min(positive), linscale=0.5)
  axis.set_xticks(values, [f'{x:g}' for x in values])
  axis.minorticks_off()


def numbers(data: Mapping[str, Sequence[Mapping]], titles: Titles) -> Figure:
  """Sweeps over numbers, as curves.

  Args:
    data: sweep -> its rows' values and metrics.
    titles: not needed: the axes name the values.

  Returns:
    The figure.
  """
  columns = min(MAX_COLUMNS, len(data))
  blocks = -(-len(data) // columns)
  figure, axes = subplots(2 * blocks, columns, 0.6 + 4.4 * blocks, sharey='row')
  for axis in axes.flat:
    axis.set_visible(False)
  for place, (sweep, entries) in enumerate(data.items()):
    block, column = divmod(place, columns)
    values = [entry['value'] for entry in entries]
    for row, keys, first in ((0, ACCURACIES, 0), (1, DELTA, 2)):
      axis = axes[2 * block + row][column]
      axis.set_visible(True)
      for number, (key, label) in enumerate(keys.items(), start=first):
        bars(axis, values, [entry[key] for entry in entries], number, label=label)
      set_scale(axis, values)
      axis.set_xlabel(sweep)
      if row:
        axis.axhline(0, color='black', linewidth=1)
      if column == 0:
        axis.set_ylabel('Δ(t1,t2) (points)' if row else 'problems right (%)')
  legend_above(figure, axes[0][0], 2)
  return figure


def labels(data: Mapping[str, Sequence[Mapping]], titles: Titles) -> Figure:
  """Sweeps over labels, as dot plots: one line a row, one block a sweep.

  Args:
    data: sweep -> its rows' values and metrics.
    titles: not needed: each entry has its own.

  Returns:
    The figure.
  """
  entries = [entry for group in data.values() for entry in group]
  figure, axes = subplots(1, 2, 1.5 + 0.42 * len(entries), sharey=True)
  y = np.arange(len(entries))
  for axis, keys, first in ((axes[0][0], ACCURACIES, 0), (axes[0][1], DELTA, 2)):
    for number, (key, label) in enumerate(keys.items(), start=first):
      spread = 0.15 * (2 * number - 1) if keys is ACCURACIES else 0
      bars(axis, y + spread, [entry[key] for entry in entries], number, True, label=label)
    axis.grid(axis='y', visible=False)
    end = -0.5
    for group in data.values():
      axis.axhline(end, color='0.7', linewidth=0.8)
      end += len(group)
  axes[0][1].axvline(0, color='black', linewidth=1)
  axes[0][0].set(xlabel='problems right (%)', ylim=(len(entries) - 0.5, -0.5))
  axes[0][1].set(xlabel='Δ(t1,t2) (percentage points)')
  axes[0][0].set_yticks(y, [shorten(entry['title'], 34) for entry in entries])
  legend_above(figure, axes[0][0], 2)
  return figure
