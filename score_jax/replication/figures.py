"""Draws the report's figures: accuracies, differences, training, voting, sweeps.

Made for a page 800 pixels wide: 8 inches at 150 dots, text of 9 points and more. Colours are those
of Okabe and Ito, which colour-blind readers tell apart, and each also has a marker and a line of
its own. Bars are 95% intervals over seeds and problems, unless a caption says otherwise.
"""

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 8.0
# Okabe-Ito, told apart by colour-blind readers; the first two are those of turn 1 and turn 2.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X')
LINES = ('-', '--', '-.', ':', (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
STYLE = {
  'font.size': 10,
  'axes.titlesize': 10,
  'xtick.labelsize': 9,
  'ytick.labelsize': 9.5,
  'legend.fontsize': 9,
  'legend.handlelength': 3.2,
  'axes.grid': True,
  'grid.alpha': 0.3,
  'axes.axisbelow': True,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'figure.constrained_layout.use': True,
  'savefig.dpi': 150,
  'text.parse_math': False,  # a title with two dollar signs is no formula
}
Titles = Mapping[str, str]


def render(draw: Callable[[Any, Titles], Figure], data: Any, titles: Titles) -> bytes:
  """Draws one figure.

  Args:
    draw: one of the functions below.
    data: of the series that it shows.
    titles: of the rows, by name.

  Returns:
    A PNG.
  """
  buffer = io.BytesIO()
  with matplotlib.rc_context(STYLE):
    draw(data, titles).savefig(buffer)
  return buffer.getvalue()


def subplots(rows: int, columns: int, height: float, **how) -> tuple[Figure, np.ndarray]:
  """A figure of the page's width and its axes, [rows, columns]."""
  figure = Figure(figsize=(WIDTH, height))  # not pyplot's: nothing is left open
  return figure, figure.subplots(rows, columns, squeeze=False, **how)


def bars(
  axis: Axes, places, intervals: Sequence[Mapping], number: int, flat: bool = False, **how
) -> None:
  """Draws means with their intervals, in percent.

  Args:
    axis: where.
    places: on the other axis, one for each interval.
    intervals: {'mean', 'low', 'high'} as fractions.
    number: of the series: its colour, marker and line.
    flat: whether means lie along x (a dot plot), and not along y.
    **how: settings that go before the series' own.
  """
  mean, low, high = (100 * np.asarray([i[k] for i in intervals]) for k in ('mean', 'low', 'high'))
  error = np.maximum([mean - low, high - mean], 0)
  how = {
    'color': COLOURS[number],
    'marker': MARKERS[number],
    'linestyle': 'none' if flat else LINES[number],
    'capsize': 2.5,
    'markersize': 5.5,
    'elinewidth': 1.2,
    'linewidth': 1.5,
  } | how
  if flat:
    axis.errorbar(mean, places, xerr=error, **how)
  else:
    axis.errorbar(places, mean, yerr=error, **how)


def dot_plot(
  data: Mapping, titles: Titles, keys: Mapping[str, str], xlabel: str, zero: bool = False
) -> Figure:
  """One line for each row, one dot for each metric.

  Args:
    data: row -> metric -> interval.
    titles: of the rows.
    keys: metric -> its name in the legend.
    xlabel: with the unit.
    zero: whether 0 is marked.

  Returns:
    The figure.
  """
  figure, axes = subplots(1, 1, 1.35 + 0.36 * len(data))
  axis, y = axes[0][0], np.arange(len(data))
  spread = np.linspace(-0.16, 0.16, len(keys)) if len(keys) > 1 else [0.0]
  for number, (key, label) in enumerate(keys.items()):
    bars(axis, y + spread[number], [row[key] for row in data.values()], number, True, label=label)
  if zero:
    axis.axvline(0, color='black', linewidth=1)
  axis.set(xlabel=xlabel, ylim=(len(data) - 0.5, -0.5))
  axis.set_yticks(y, [shorten(titles[name], 34) for name in data])
  axis.grid(axis='y', visible=False)
  for line in y[:-1] + 0.5:
    axis.axhline(line, color='0.9', linewidth=0.8, zorder=0)
  if len(keys) > 1:
    legend_above(figure, axis, len(keys))
  return figure


def shorten(title: str, width: int, max_lines: int | None = None) -> str:
  """Breaks a title into lines of a width, and leaves out what more lines would hold."""
  return textwrap.fill(title, width, max_lines=max_lines, placeholder=' …')


def legend_above(figure: Figure, axis: Axes, columns: int) -> None:
  """Puts the legend where it covers no data."""
  handles, labels = axis.get_legend_handles_labels()
  figure.legend(handles, labels, loc='outside upper center', ncols=columns, frameon=False)


def accuracies(data: Mapping, titles: Titles) -> Figure:
  """Accuracy at both turns, one line a row."""
  keys = {'acc_t1': 'turn 1', 'acc_t2': 'turn 2'}
  return dot_plot(data, titles, keys, 'held-out problems answered correctly (%)')


def deltas(data: Mapping, titles: Titles) -> Figure:
  """Accuracy at turn 2 less that at turn 1, one line a row."""
  label = 'Δ(t1,t2): accuracy at turn 2 minus turn 1 (percentage points)'
  return dot_plot(data, titles, {'delta': ''}, label, zero=True)


def corrections(data: Mapping, titles: Titles) -> Figure:
  """Answers set right and answers spoilt, one line a row."""
  keys = {'i2c': 'i→c: wrong, then right', 'c2i': 'c→i: right, then wrong'}
  return dot_plot(data, titles, keys, 'share of held-out problems (%)')


def fixed_or_own(data: Mapping, titles: Titles) -> Figure:
  """Gain at turn 2 on forced and on own first answers, one line a row."""
  keys = {'fixed': "after the base model's first answers", 'own': 'after its own first answers'}
  label = 'accuracy of second minus first answers (percentage points)'
  return dot_plot(data, titles, keys, label, zero=True)


def curve(axis: Axes, steps: Sequence, band: Mapping, number: int, label: str) -> None:
  """Draws a curve over training, in percent, with a band from the least to the greatest seed."""
  mean, low, high = (100 * np.asarray(band[k]) for k in ('mean', 'low', 'high'))
  axis.fill_between(steps, low, high, color=COLOURS[number], alpha=0.15, linewidth=0)
  axis.plot(
    steps,
    mean,
    color=COLOURS[number],
    linestyle=LINES[number],
    marker=MARKERS[number],
    markevery=(0, max(1, len(steps) // 8)),
    markersize=4.5,
    linewidth=1.5,
    label=label,
  )


def training_curves(data: Mapping, titles: Titles, panels: Mapping[str, str], ylabel: str):
  """One panel for each metric, one curve for each row.

  Args:
    data: row -> {'steps', metric: {'mean', 'low', 'high'}}.
    titles: of the rows.
    panels: metric -> title of its panel.
    ylabel: with the unit.

  Returns:
    The figure.
  """
  figure, axes = subplots(1, len(panels), 3.7, sharey=True)
  for axis, (key, title) in zip(axes[0], panels.items(), strict=True):
    for number, (name, curves) in enumerate(data.items()):
      curve(axis, curves['steps'], curves[key], number, titles[name])
    axis.set(title=title, xlabel="training step (of the row's own run)")
  axes[0][0].set_ylabel(ylabel)
  legend_above(figure, axes[0][0], 2 if len(data) > 3 else len(data))
  return figure


def changed_curves(data: Mapping, titles: Titles) -> Figure:
  """Share of changed answers over training."""
  label = 'training episodes whose second\nfinal answer differs (%)'
  figure = training_curves(data, titles, {'train/changed_t12': ''}, label)
  figure.axes[0].set_ylim(bottom=0)
  return figure


def reward_curves(data: Mapping, titles: Titles) -> Figure:
  """Reward of both turns over training."""
  panels = {'train/reward_t1': 'turn 1', 'train/reward_t2': 'turn 2'}
  return training_curves(data, titles, panels, 'training problems right (%),\nat temperature 1')


def edits(data: Mapping, titles: Titles) -> Figure:
  """How far second answers lie from first ones, one panel a row."""
  columns = 3
  rows = math.ceil(len(data) / columns)
  filled = [k for h in data.values() for k, share in enumerate(h['shares']) if share['mean'] > 0]
  end = max(0.5, next(iter(data.values()))['edges'][max(filled)])
  figure, axes = subplots(rows, columns, 0.9 + 1.75 * rows, sharex=True, sharey=True)
  for axis in axes.flat[len(data) :]:
    axis.set_visible(False)
  for place, (name, histogram) in enumerate(data.items()):
    axis, edges = axes.flat[place], np.asarray(histogram['edges'])
    width = edges[1] - edges[0]
    # The answers that are the same have a bar of their own, left of 0.
    centres = np.concatenate([[-width / 2], edges[:-1] + width / 2])
    mean, low, high = (
      100 * np.asarray([share[k] for share in histogram['shares']]) for k in ('mean', 'low', 'high')
    )
    colours = [COLOURS[1]] + [COLOURS[0]] * (len(centres) - 1)
    error = np.maximum([mean - np.maximum(low, 0), high - mean], 0)
    axis.bar(centres, mean, 0.9 * width, color=colours)
    axis.errorbar(centres, mean, error, linestyle='none', color='0.25', elinewidth=0.9)
    axis.set(title=shorten(titles[name], 30), xlim=(-1.5 * width, end), ylim=(0, 100))
    axis.tick_params(labelbottom=place + columns >= len(data))
  figure.supxlabel('edit-distance ratio of the two answers (0: the same text)', fontsize=10)
  figure.supylabel('share of problems (%)', fontsize=10)
  return figure


def scaling(data: Mapping, titles: Titles) -> Figure:
  """Voted accuracy over the budget, one panel a row."""
  columns = min(2, len(data))
  rows = math.ceil(len(data) / columns)
  figure, axes = subplots(rows, columns, 0.9 + 2.9 * rows, sharey=True)
  ways = {'parallel': 'parallel: vote over first answers', 'sequential': 'sequential: vote over '}
  ways['sequential'] += 'second answers, half as many episodes'
  for axis in axes.flat[len(data) :]:
    axis.set_visible(False)
  for axis, (name, budgets) in zip(axes.flat, data.items(), strict=False):
    x = np.asarray([float(budget) for budget in budgets])
    for number, (way, label) in enumerate(ways.items()):
      places = x * (1.03 if number else 1 / 1.03)
      bars(axis, places, [found[way] for found in budgets.values()], number, label=label)
    axis.set_xscale('log', base=2)
    axis.set_xticks(x, [f'{budget:g}' for budget in x])
    axis.minorticks_off()
    axis.set(title=titles[name], xlabel='budget (answers sampled for each problem)')
  for axis in axes[:, 0]:
    axis.set_ylabel('held-out problems right\nby majority vote (%)')
  legend_above(figure, axes[0][0], 1)
  return figure


def many_turns(data: Mapping, titles: Titles) -> Figure:
  """Accuracy at each of many turns."""
  figure, axes = subplots(1, 1, 3.9)
  axis = axes[0][0]
  for number, (name, turns) in enumerate(list(data.items())[: len(COLOURS)]):
    shift = 0.09 * (number - (len(data) - 1) / 2)
    bars(axis, np.arange(1, len(turns) + 1) + shift, turns, number, label=titles[name])
  axis.set(xlabel='turn', ylabel='held-out problems right (%)')
  axis.set_xticks(range(1, 1 + max(len(turns) for turns in data.values())))
  legend_above(figure, axis, 3)
  return figure


def levels(data: Mapping, titles: Titles) -> Figure:
  """Answers set right and spoilt by difficulty, one panel for each."""
  figure, axes = subplots(1, 2, 3.6, sharey=True)
  names = list(dict.fromkeys(level for found in data.values() for level in found))
  panels = {'i2c': 'i→c: wrong, then right', 'c2i': 'c→i: right, then wrong'}
  for axis, (key, title) in zip(axes[0], panels.items(), strict=True):
    for number, (name, found) in enumerate(data.items()):
      places = np.asarray([names.index(level) for level in found]) + (0.1 if number else -0.1)
      cells = [level[key] | {'low': max(0.0, level[key]['low'])} for level in found.values()]
      bars(axis, places, cells, number, label=titles[name], linestyle='none')
    axis.set(title=title, xlabel='difficulty level', xlim=(-0.5, len(names) - 0.5))
    axis.set_xticks(range(len(names)), names, rotation=0 if len(''.join(names)) < 36 else 45)
  axes[0][0].set_ylim(bottom=0)  # once all is drawn: it ends the scaling by what is drawn
  axes[0][0].set_ylabel("share of the level's problems (%)")
  legend_above(figure, axes[0][0], len(data))
  return figure
