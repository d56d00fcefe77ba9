"""Writes the report of a replication: report.md with figures/, report.html and report.json.

`write_report` is of all that the paper compares, over several seeds; `write_short_report` of a few
rows and one seed, without a page and with one figure.

The Markdown is the report. The page is the same text with the figures inside it, to be sent to
somebody; the JSON holds every number of the tables and figures, as fractions.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from score_jax.replication import (
  changes,
  collapse_figure,
  figures,
  gallery,
  orderings,
  paper,
  series,
  short_report,
  tables,
)
from score_jax.replication.page import make_page
from score_jax.replication.results import KINDS, Result, interval, read_results
from score_jax.replication.rows import ReplicationRow
from score_jax.replication.tables import COLUMNS, escape
from score_jax.runs.files import to_plain, write_atomic

INTERVALS = (
  'Numbers are percent (differences: percentage points), a mean over seeds and problems with its '
  '95% interval in brackets. Every seed answers the same problems, so the variance of a mean is '
  'that of the seed means over the number of seeds plus that of the problem means over the number '
  "of problems, with Student's t and the degrees of freedom of Welch and Satterthwaite; where "
  'there is one seed, the interval speaks of the problems alone.'
)
TITLE = 'SCoRe and what the paper compares it with'
TURNS = {
  'acc_t1': 'Accuracy@t1',
  'acc_t2': 'Accuracy@t2',
  'acc_t3': 'Accuracy@t3',
  'delta': 'Δ(t2,t3)',
  'changed': 'changed at t3',
}
SAMPLED = 'Sampled at temperature 1:'
REGIMES = (
  'Share of training episodes whose second final answer differs from the first, at temperature 1: '
  'in the first update, whose episodes the base model or Stage I samples, over the tenth of the '
  'updates in which it is greatest, and over the last tenth; “collapsed” where it ends below a '
  'third of the greatest. The other columns are of the final evaluation, sampled at temperature 1.'
)


def markdown(
  results: Mapping[str, Result],
  about: Mapping[str, Any],
  found: Mapping[str, series.Series],
  judged: Sequence[tuple[str, list[dict]]],
) -> str:
  """Writes the report's text.

  Args:
    results: by row name.
    about: see `write_report`.
    found: the figures' series, by name of the figure.
    judged: of `orderings.orderings`.

  Returns:
    Markdown, which shows the figures from `figures/`.
  """

  def of(group: str, kind: str, columns=COLUMNS, papers=(), before=()) -> str:
    names = [*before, *series.names_of(results, group)]
    known = [name for name in names if name in results]
    return tables.metrics_table(results, known, kind, columns, papers)

  removed = ('score', 'single_turn_rl')
  parts = [
    f'# {escape(about.get("title", TITLE))}',
    tables.header_text(results, about),
    INTERVALS,
    tables.E_MEANS,
    '## Methods',
    "Greedy answers; the last column holds the paper's on MATH500 with Gemini 1.5 Flash: another "
    'task and another model, so that orderings compare and sizes do not.',
    of('method', 'greedy', papers=paper.METRICS),
    SAMPLED,
    of('method', 'sampled'),
    '## Ablations',
    'Greedy answers. Single-turn RL is the ablation without multi-turn training.',
    of('ablation', 'greedy', papers=paper.METRICS[:3], before=removed),
    SAMPLED,
    of('ablation', 'sampled', before=removed),
    '## SCoRe against every other row',
    "Greedy answers: differences on the same problems and seeds. McNemar's exact two-sided test "
    'asks of each seed by itself whether the two are right equally often at turn 2. No number is '
    'corrected for how many there are.',
    tables.comparison_table(results, 'greedy'),
    SAMPLED,
    tables.comparison_table(results, 'sampled'),
    "## The paper's orderings, and whether they held here",
    '“Held”: the 95% interval of the greedy difference lies above 0; “reversed”: below 0; “not '
    'separated”: it holds 0.',
    tables.ordering_text(judged),
    *about.get('notes', ()),
    '## Three turns',
    "Greedy answers; the last column holds the paper's on MATH with Gemma-2-2B.",
    of('turns', 'greedy', TURNS, tuple(TURNS)[:3]),
  ]
  if names := [name for name, result in results.items() if result.outcomes['train']]:
    parts += ['## On the problems that were trained on', 'Greedy answers:']
    parts.append(tables.metrics_table(results, names, 'train', COLUMNS))
  if series.names_of(results, 'model'):
    parts += ['## Other models', 'Greedy answers:', of('model', 'greedy')]
  parts += ['## Figures', *gallery.markdown(found)]
  parts += ['## Sweeps', 'Greedy answers:', of('sweep', 'greedy')]
  parts += ['## Where plain multi-turn RL collapses', REGIMES]
  parts.append(tables.regime_table(series.regimes(results), results))
  parts += ['## Rows', tables.rows_table(results)]
  return '\n\n'.join(parts) + '\n'


def numbers(
  results: Mapping[str, Result],
  about: Mapping[str, Any],
  found: Mapping[str, series.Series],
  judged: Sequence[tuple[str, list[dict]]],
) -> dict:
  """Gathers every number of the report, as fractions.

  Args:
    results: by row name.
    about: see `write_report`.
    found: the figures' series, by name of the figure.
    judged: of `orderings.orderings`.

  Returns:
    What report.json holds.
  """
  rows = {}
  for name, result in results.items():
    row = result.row
    rows[name] = {
      'title': row.title,
      'group': row.group,
      'sweep': row.sweep,
      'value': row.value,
      'state': result.state,
      'wanted_seeds': result.wanted,
      'seeds': list(result.seeds),
      'runs': result.seeds,
      **changes.changed_shares(result),
      'paper': paper.fractions(row.paper),
    }
    for kind in KINDS:
      outcomes = list(result.outcomes[kind].values())
      keys = outcomes[0].values if outcomes else ()
      rows[name][kind] = {key: interval(result, kind, key) for key in keys}
  return {
    'about': about,
    'rows': rows,
    'comparisons': {kind: orderings.comparisons(results, kind) for kind in KINDS[:2]},
    'orderings': [judgement for _, judgements in judged for judgement in judgements],
    'figures': {name: {'data': s.data, 'missing': s.missing} for name, s in found.items()},
    'regimes': series.regimes(results).data,
  }


def write_report(
  workdir: epath.Path,
  rows: Sequence[ReplicationRow],
  about: Mapping[str, Any],
  seeds: Sequence[int] | None = None,
) -> None:
  """Writes report.md, figures/, report.html and report.json into a work directory.

  It may be half-finished: what is not there yet is named in its place.

  Args:
    workdir: of the replication.
    rows: in the order of the report.
    about: what to say besides: 'title'; 'notes', Markdown paragraphs that follow the orderings;
      'sweep_reference', sweep -> the value that SCoRe's own row has, so that it stands in the
      sweep's figure; every other entry is a line of the header.
    seeds: that were asked for; None takes those that were begun.

  Raises:
    ValueError: for a broken `row.json` or metrics; for rows of one name.
  """
  results = read_results(workdir, rows, seeds)
  judged = orderings.orderings(results)
  found = gallery.collect(results, about.get('sweep_reference', {}))
  images = gallery.draw(found, {name: result.row.title for name, result in results.items()})
  for path, png in images.items():
    write_atomic(workdir / path, png)
  text = markdown(results, about, found, judged)
  write_atomic(workdir / 'report.md', text)
  write_atomic(workdir / 'report.html', make_page(text, about.get('title', TITLE), images))
  data = to_plain(numbers(results, about, found, judged))
  write_atomic(workdir / 'report.json', json.dumps(data, indent=1, ensure_ascii=False) + '\n')


def write_short_report(workdir: epath.Path, rows: Sequence[ReplicationRow], seed: int) -> None:
  """Writes report.md, training.png and report.json of finished rows of one seed.

  Args:
    workdir: of the replication.
    rows: in the order of the report; what is said of SCoRe is said of the one with the paper's
      'score'.
    seed: of all rows.

  Raises:
    ValueError: naming file and line, for a broken file.
  """
  results = read_results(workdir, rows, [seed])
  data = short_report.numbers(workdir, results, seed)
  titles = {name: result.row.title for name, result in results.items()}
  png = figures.render(collapse_figure.draw, short_report.pictured(results, data), titles)
  write_atomic(workdir / short_report.FIGURE, png)
  write_atomic(workdir / 'report.md', short_report.markdown(results, data))
  write_atomic(workdir / 'report.json', json.dumps({'rows': data}, indent=2) + '\n')
