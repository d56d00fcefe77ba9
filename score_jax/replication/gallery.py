"""The report's figures: what each is called, what it shows, and how it is drawn."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from score_jax.replication import figures, series, sweep_figures
from score_jax.replication.results import Result
from score_jax.replication.series import Series
from score_jax.replication.tables import escape


@dataclasses.dataclass(frozen=True)
class Plate:
  """One figure of the report.

  Attributes:
    name: of its file, without the ending.
    caption: what it shows, beginning with a title.
    collect: results by row name -> its numbers.
    draw: its numbers and the rows' titles -> the figure.
  """

  name: str
  caption: str
  collect: Callable[[Mapping[str, Result]], Series]
  draw: Callable[[Mapping, Mapping[str, str]], Any]


PLATES = (
  Plate(
    'accuracy',
    'Accuracy of first and second answers, greedy, with 95% intervals.',
    series.metrics('greedy', ('acc_t1', 'acc_t2'), 'method'),
    figures.accuracies,
  ),
  Plate(
    'delta',
    'What the second turn adds: Δ(t1,t2), greedy, of methods and ablations, with 95% intervals.',
    series.metrics('greedy', ('delta',), 'method', 'ablation'),
    figures.deltas,
  ),
  Plate(
    'corrections',
    'Answers set right and answers spoilt at turn 2, greedy, with 95% intervals.',
    series.metrics('greedy', ('i2c', 'c2i'), 'method'),
    figures.corrections,
  ),
  Plate(
    'changed',
    "Share of changed answers over training (the paper's Fig. 6): mean over seeds, the band "
    'reaching from the least to the greatest seed. SCoRe begins where Stage I ends.',
    series.training('train/changed_t12'),
    figures.changed_curves,
  ),
  Plate(
    'reward',
    'Training reward of both turns: mean over seeds, the band reaching from the least to the '
    'greatest seed. SCoRe begins where Stage I ends.',
    series.training('train/reward_t1', 'train/reward_t2'),
    figures.reward_curves,
  ),
  Plate(
    'edits',
    "How much of the answer is rewritten (the paper's Fig. 4): edit distance in characters over "
    'the length of both answers, sampled at temperature 1. The orange bar left of 0 is of answers '
    'that are the same text. Lines are 95% intervals.',
    series.edits,
    figures.edits,
  ),
  Plate(
    'scaling',
    "What samples are best spent on (the paper's Fig. 1, right): a majority vote over 2K "
    'independent first answers, or over the second answers of K episodes, at temperature 0.7, with '
    '95% intervals.',
    series.scaling,
    figures.scaling,
  ),
  Plate(
    'turns',
    'Accuracy over more turns than were trained, greedy, with 95% intervals.',
    series.many_turns,
    figures.many_turns,
  ),
  Plate(
    'fixed',
    "Correcting forced or own first answers (the paper's Fig. 5): second answers are greedy; the "
    "forced first answers are the base model's, sampled at temperature 1, the same for every row; "
    "a row's own are greedy. 95% intervals.",
    series.fixed_or_own,
    figures.fixed_or_own,
  ),
  Plate(
    'levels',
    'Answers set right and spoilt by difficulty, greedy, with 95% intervals.',
    series.levels,
    figures.levels,
  ),
)
SWEEPS = 'Sweeps: greedy accuracy of both turns, and their difference, with 95% intervals.'


def collect(results: Mapping[str, Result], reference: Mapping[str, Any]) -> dict[str, Series]:
  """Gathers the numbers of every figure.

  Args:
    results: by row name.
    reference: sweep -> its value in SCoRe's own row.

  Returns:
    By name of the figure, in the order of the report. Sweeps over numbers and sweeps over labels
    are two figures.
  """
  found = {plate.name: plate.collect(results) for plate in PLATES}
  swept = series.sweeps(results, reference)
  is_numeric = {sweep: sweep_figures.is_numeric(entries) for sweep, entries in swept.data.items()}
  for name, wanted in (('sweep_numbers', True), ('sweep_labels', False)):
    data = {sweep: x for sweep, x in swept.data.items() if is_numeric[sweep] is wanted}
    found[name] = Series(data, swept.missing)
  return found


def plates() -> dict[str, tuple[str, Callable]]:
  """Caption and drawing of each figure, by name."""
  known = {plate.name: (plate.caption, plate.draw) for plate in PLATES}
  return known | {
    'sweep_numbers': (f'{SWEEPS} Swept quantities with numbers.', sweep_figures.numbers),
    'sweep_labels': (f'{SWEEPS} Swept quantities without numbers.', sweep_figures.labels),
  }


def path_of(name: str) -> str:
  """Where a figure lies, seen from the report."""
  return f'figures/{name}.png'


def draw(found: Mapping[str, Series], titles: Mapping[str, str]) -> dict[str, bytes]:
  """Draws every figure that there are numbers for.

  Args:
    found: of `collect`.
    titles: of the rows, by name.

  Returns:
    PNG by path, seen from the report.
  """
  return {
    path_of(name): figures.render(plates()[name][1], series_.data, titles)
    for name, series_ in found.items()
    if series_.data
  }


def markdown(found: Mapping[str, Series]) -> list[str]:
  """Shows every figure, or says which files it lacks.

  Args:
    found: of `collect`.

  Returns:
    Markdown paragraphs.
  """
  parts = []
  for number, (name, shown) in enumerate(found.items(), start=1):
    caption = f'**Figure {number}.** {plates()[name][0]}'
    missing = escape('; '.join(shown.missing))
    if shown.data:
      parts.append(f'![Figure {number}]({path_of(name)})')
      parts.append(caption + (f' Not shown: {missing}.' if missing else ''))
    else:
      parts.append(f'{caption} Not drawn: {missing or "there are no such rows"}.')
  return parts
