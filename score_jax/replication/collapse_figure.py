"""The figure of the short report: whether a row keeps correcting what it has not seen."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from score_jax.replication.changes import CHANGED, tenth
from score_jax.replication.figures import COLOURS, MARKERS, WIDTH, Titles, shorten

UNTRAINED = '0.55'  # grey
SPLITS = {'held-out': COLOURS[0], 'training': COLOURS[1]}


def draw(data: Mapping[str, Any], titles: Titles) -> Figure:
  """Draws changed answers in training, mended ones, and the accuracy of both turns.

  Args:
    data: of `score_jax.replication.short_report.pictured`.
    titles: of the rows, by name.

  Returns:
    The figure; a row has one colour above, and none where it was not trained.
  """
  names = list(data['accuracy'])
  heights = max(3.7, 1.6 + 0.42 * len(names)), 1.2 + 0.4 * len(names)
  figure = Figure(figsize=(WIDTH, sum(heights)))
  above, below = figure.subfigures(2, 1, height_ratios=heights)
  left, right = above.subplots(1, 2, width_ratios=(1.5, 1))
  colours = {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(data['changed'])}
  _changed(left, data['changed'], colours, titles)
  _mended(right, data['mended'], names, colours, titles)
  _accuracy(below.subplots(), data['accuracy'], titles)
  return figure


def _changed(axis: Axes, data: Mapping, colours: Mapping[str, str], titles: Titles) -> None:
  for number, (name, found) in enumerate(data.items()):
    steps, band = found['steps'], found[CHANGED]
    mean, low, high = (100 * np.asarray(band[k]) for k in ('mean', 'low', 'high'))
    axis.fill_between(steps, low, high, color=colours[name], alpha=0.15, linewidth=0)
    axis.plot(steps, mean, color=colours[name], linewidth=0.8, alpha=0.35)
    marks = {'marker': MARKERS[number % len(MARKERS)], 'markevery': (0, max(1, len(steps) // 5))}
    label = shorten(titles[name], 26, 2)
    axis.plot(steps, smooth(mean), color=colours[name], linewidth=1.8, label=label, **marks)
  before = {found['start']: {} for found in data.values() if found['after']}
  for found in data.values():
    if found['after']:
      before[found['start']][titles[found['after']]] = None  # each once
  for start, names in before.items():
    axis.axvline(start + 0.5, color='0.3', linewidth=1, linestyle=':')
    where = {'transform': axis.get_xaxis_transform(), 'fontsize': 8.5, 'color': '0.3'}
    text = ' ' + shorten(f'after {", ".join(names)}', 28, 1)
    axis.text(start + 0.5, 0.015, text, clip_on=True, **where)
  axis.set(xlabel='update, with those of what a row starts from', ylabel='training episodes (%)')
  if data:
    axis.set_ylim(bottom=0)
    axis.xaxis.get_major_locator().set_params(integer=True)
  else:
    axis.set(xticks=[], yticks=[])
    axis.text(0.5, 0.5, 'nothing was trained', ha='center', transform=axis.transAxes)
  _legend(axis, 'Answers changed at turn 2 in training', 2)


def smooth(x_T: np.ndarray) -> np.ndarray:
  """Means over the tenth of a row's updates that lies about each of them, less at both ends.

  Example:
    >>> smooth(np.array([0.0, 3, 0] + [0] * 27)).tolist()[:4]
    [1.5, 1.0, 1.0, 0.0]
  """
  window = np.ones(tenth(len(x_T)))
  return np.convolve(x_T, window, 'same') / np.convolve(np.ones(len(x_T)), window, 'same')


def _mended(
  axis: Axes, data: Mapping, names: Sequence[str], colours: Mapping[str, str], titles: Titles
) -> None:
  for place, name in enumerate(names):
    if name not in data or data[name]['mean'] is None:
      why = 'no wrong first answer' if name in data else 'not evaluated'
      axis.text(2, place, why, va='center', fontsize=8.5, color='0.3')
      continue
    mean, low, high = (100 * data[name][k] for k in ('mean', 'low', 'high'))
    axis.barh(place, mean, 0.62, color=colours.get(name, UNTRAINED))
    error = np.maximum([[mean - low], [high - mean]], 0)
    axis.errorbar(mean, place, xerr=error, color='black', capsize=2.5, elinewidth=1.2)
    axis.text(high + 2, place, f'{mean:.0f}', va='center')
  axis.set(xlabel='share of them (%)', xlim=(0, 114))
  axis.set_xticks(range(0, 101, 25))
  axis.set_title('Held-out wrong first\nanswers set right', fontsize=10, loc='left')
  _row_labels(axis, names, titles, 14)


def _accuracy(axis: Axes, data: Mapping, titles: Titles) -> None:
  for place, row in enumerate(data.values()):
    for split, found in row.items():
      y = place + (-0.17 if split == 'held-out' else 0.17)
      ends = [found[key] for key in ('acc_t1', 'acc_t2')]
      axis.plot([100 * end['mean'] for end in ends], [y, y], color=SPLITS[split], alpha=0.4)
      for turn, end in enumerate(ends):
        mean, low, high = (100 * end[k] for k in ('mean', 'low', 'high'))
        label = f'{split}, turn {turn + 1}'
        axis.errorbar(
          mean,
          y,
          xerr=np.maximum([[mean - low], [high - mean]], 0),
          color=SPLITS[split],
          marker=MARKERS[turn],
          markersize=(5, 8)[turn],  # neither hides the other where nothing changed
          zorder=4 - turn,
          markerfacecolor=SPLITS[split] if turn else 'white',
          linestyle='none',
          capsize=2.5,
          elinewidth=1.2,
          label=None if label in axis.get_legend_handles_labels()[1] else label,
        )
  axis.set(xlabel='problems answered correctly, greedily (%)', xlim=(-2, 102))
  _row_labels(axis, list(data), titles, 22)
  for line in np.arange(len(data) - 1) + 0.5:
    axis.axhline(line, color='0.9', linewidth=0.8, zorder=0)
  _legend(axis, 'Accuracy of first and second answers', 4)


def _row_labels(axis: Axes, names: Sequence[str], titles: Titles, width: int) -> None:
  axis.set_yticks(range(len(names)), [shorten(titles[name], width, 2) for name in names])
  axis.set_ylim(max(len(names), 1) - 0.5, -0.5)
  axis.grid(axis='y', visible=False)


def _legend(axis: Axes, title: str, columns: int) -> None:
  """A title and below it a legend that covers no data."""
  how = {'title': title, 'alignment': 'left', 'frameon': False, 'borderpad': 0, 'handlelength': 1.8}
  axis.legend(
    *axis.get_legend_handles_labels(),
    ncols=columns,
    loc='lower left',
    bbox_to_anchor=(0, 1.01),
    columnspacing=1.2,
    **how,
  )
