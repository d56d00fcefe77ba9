"""The report's tables, as Markdown. A row without numbers says why, and is never left out."""

from collections.abc import Mapping, Sequence
from typing import Any

from score_jax.replication import orderings, paper, series
from score_jax.replication.orderings import points
from score_jax.replication.results import Result, interval, shortfall

COLUMNS = {
  'acc_t1': 'Accuracy@t1',
  'acc_t2': 'Accuracy@t2',
  'delta': 'Δ(t1,t2)',
  'i2c': 'Δ i→c',
  'c2i': 'Δ c→i',
  'changed': 'changed',
  'e_minus': 'e−',
  'e_plus': 'e+',
  'i2c_truncated': 'i→c, cut off at t1',
}
E_MEANS = (
  'e− is the share of right first answers that are spoilt, e+ that of wrong ones that are left '
  'wrong; the last column is the share of corrections (i→c) whose first answer was cut off. Behind '
  'each stands of how many answers it is.'
)
ENDS = {
  'changed_first': 'first update',
  'changed_peak': 'greatest tenth',
  'changed_last': 'last tenth',
}

NO_NUMBER = '–'
SHORT = {
  'acc_t1': 't1',
  'acc_t2': 't2',
  'acc_t3': 't3',
  'delta': 'Δ',
  'i2c': 'i→c',
  'c2i': 'c→i',
}


def escape(text: Any) -> str:
  """Makes a text of any kind safe in a cell of a Markdown table.

  Args:
    text: shown as it is.

  Returns:
    Markdown.

  Example:
    >>> print(escape('a|b *c*'))
    a\\|b \\*c\\*
  """
  text = ' '.join(str(text).split())
  return ''.join(f'\\{c}' if c in '\\`*_[]<>|&' else c for c in text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], num_text: int = 1) -> str:
  """Lays out a Markdown table, numbers to the right.

  Args:
    header: of the columns.
    rows: of cells.
    num_text: columns of text, which come first.

  Returns:
    Markdown.
  """
  lines = [
    '| ' + ' | '.join(header) + ' |',
    '|' + '---|' * num_text + '---:|' * (len(header) - num_text),
  ]
  return '\n'.join(lines + ['| ' + ' | '.join(row) + ' |' for row in rows])


def cell(found: Mapping[str, float] | None, sign: bool = False) -> str:
  """An interval, or a dash where there is none; a share of some problems with how many they are."""
  if not found:
    return NO_NUMBER
  of = f' of {found["denominator"]}' if 'denominator' in found else ''
  return (NO_NUMBER if found['mean'] is None else points(found, sign)) + of


def titled(result: Result, kind: str, has_numbers: bool = True) -> str:
  """A row's title, with what is to be known of it.

  Args:
    result: the row's.
    kind: of evaluation that the numbers are of.
    has_numbers: whether its numbers follow; if not, it is told why.

  Returns:
    Markdown.
  """
  title, lacks = escape(result.row.title), result.lacks(kind)
  if not has_numbers:
    why = result.status or '; '.join(result.damaged) or 'files are missing'
    return f'{title}: *{escape(why)}*'
  count = f'{len(result.wanted) - len(lacks)} of {len(result.wanted)} seeds'
  return f'{title} ({count}, without {", ".join(map(str, lacks))})' if lacks else title


def metrics_table(
  results: Mapping[str, Result],
  names: Sequence[str],
  kind: str,
  columns: Mapping[str, str],
  papers: Sequence[str] = (),
) -> str:
  """Lays out rows, the paper's numbers beside the measured ones.

  Args:
    results: by row name.
    names: of the rows.
    kind: of evaluation.
    columns: metric -> header.
    papers: metrics of which the paper's numbers are shown, in one last column; none: no column.

  Returns:
    Markdown; a row without numbers says why.
  """
  if not names:
    return 'There are no such rows.'
  header = ['', *columns.values()]
  if papers:
    header.append('paper: ' + ' / '.join(SHORT[key] for key in papers))
  rows = []
  for result in map(results.get, names):
    found = {key: interval(result, kind, key) for key in columns}
    cells = [cell(found[key], key == 'delta') for key in columns]
    if papers:
      theirs = paper.fractions(result.row.paper)
      told = [f'{100 * theirs[key]:.1f}' if key in theirs else NO_NUMBER for key in papers]
      cells.append(' / '.join(told) if theirs else NO_NUMBER)
    rows.append([titled(result, kind, any(found.values())), *cells])
  return table(header, rows)


def comparison_table(results: Mapping[str, Result], kind: str) -> str:
  """Lays out what SCoRe has over every other method and ablation.

  Args:
    results: by row name.
    kind: of evaluation.

  Returns:
    Markdown.
  """
  compared = orderings.comparisons(results, kind)
  if not compared:
    return 'SCoRe and no other row have an evaluation of the same seed yet.'
  header = ['SCoRe minus', *(COLUMNS[key] for key in orderings.COMPARED)]
  header.append('McNemar p at turn 2, seed by seed')
  rows = []
  for name, found in compared.items():
    p = ', '.join(f'{value:.2g}' for value in found['mcnemar_t2'].values())
    cells = [cell(found[key], sign=True) for key in orderings.COMPARED]
    rows.append([escape(results[name].row.title) + shortfall(found['delta']), *cells, p])
  return table(header, rows)


def ordering_text(judged: Sequence[tuple[str, list[dict]]]) -> str:
  """Writes each claim, what it came to, and one sentence a comparison."""
  parts = []
  for number, (claim, judgements) in enumerate(judged, start=1):
    count = orderings.count_verdicts(judgements) or 'no row to judge it by'
    parts.append(f'{number}. {claim} Here: **{count}**.')
    parts += [f'   - {judgement["sentence"]}' for judgement in judgements]
  return '\n'.join(parts)


def regime_table(found: series.Series, results: Mapping[str, Result]) -> str:
  """Lays out where each regime took the share of changed answers."""
  keys = series.REGIME_KEYS
  header = ['', *(f'changed, {end}' for end in ENDS.values()), 'collapsed']
  names = series.names_of(results, 'regime')
  if not names:
    return 'There are no such rows.'
  rows = []
  for name in names:
    cells = [NO_NUMBER] * (len(header) - 1 + len(keys))
    if name in found.data:
      data = found.data[name]
      ends = [f'{100 * data[end]:.1f}' for end in ENDS]
      cells = [*ends, 'yes' if data['collapsed'] else 'no']
      cells += [cell(data[key], key == 'delta') for key in keys]
    rows.append([titled(results[name], 'sampled', name in found.data), *cells])
  return table([*header, *(f'{COLUMNS[key]}, at the end' for key in keys)], rows)


def seconds_text(seconds: float) -> str:
  """Writes a duration.

  Example:
    >>> seconds_text(3700)
    '1 h 2 min'
  """
  minutes = round(seconds / 60)
  if minutes < 2:
    return f'{seconds:.0f} s'
  return f'{minutes // 60} h {minutes % 60} min' if minutes >= 60 else f'{minutes} min'


def rows_table(results: Mapping[str, Result]) -> str:
  """Lays out which seeds of each row are finished, how long they took, and what went wrong."""
  rows = []
  for name, result in results.items():
    seeds = ', '.join(map(str, result.seeds)) or NO_NUMBER
    took = sum(seed.get('seconds', 0) for seed in result.seeds.values())
    rows.append([f'`{name}`', escape(result.row.title), escape(result.state), seeds, f'{took:.0f}'])
  return table(['folder', 'row', 'state', 'seeds', 'seconds'], rows, num_text=4)


def header_text(results: Mapping[str, Result], about: Mapping[str, Any]) -> str:
  """Says where the numbers come from.

  Args:
    results: by row name.
    about: what to say besides, a line for each entry but those that the report has elsewhere.

  Returns:
    A Markdown list.
  """
  begun = [result for result in results.values() if result.seeds]
  seeds = [seed for result in begun for seed in result.seeds.values()]

  def told(key: str) -> str:
    return ', '.join(dict.fromkeys(str(s[key]) for s in seeds if key in s)) or 'none yet'

  numbers = sorted({seed for result in begun for seed in result.seeds})
  took = sum(seed.get('seconds', 0) for seed in seeds)
  facts = {
    'commit': told('commit'),
    'hardware': told('hardware'),
    'seeds': ', '.join(map(str, numbers)) or 'none yet',
    'held-out problems': told('num_problems'),
    'time': f'{seconds_text(took)} for all finished seeds of all rows',
    'rows': f'{len(begun)} of {len(results)} have numbers',
  }
  if gaps := [f'{r.row.title} ({r.state})' for r in begun if r.state != 'finished']:
    facts['not whole, and marked in every table'] = '; '.join(gaps)
  facts |= {k: v for k, v in about.items() if k not in ('title', 'notes', 'sweep_reference')}
  return '\n'.join(f'- {escape(key)}: {escape(value)}' for key, value in facts.items())
