"""The short report: a few rows, one seed, one figure. What it says and the numbers in it."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from score_jax.replication import orderings, tables
from score_jax.replication.changes import changed_curves, changed_shares, started_from
from score_jax.replication.results import KINDS, Result
from score_jax.replication.rows import seed_dir
from score_jax.replication.tables import COLUMNS, escape
from score_jax.runs.files import read_json

FIGURE = 'training.png'
TABLES = {
  'greedy': 'Held-out problems, greedy',
  'sampled': 'Held-out problems, sampled at temperature 1',
  'train': 'Training problems, greedy',
}
ALT = 'Changed answers in training, wrong answers mended, and accuracy of both turns'
CAPTION = (
  "Above left: share of changed answers in training, at temperature 1 (the paper's Fig. 6), each "
  'row after what it starts from; the thick line is a mean over the tenth of its updates around '
  'each. Above right: of the held-out problems that a row answers wrongly at first, greedily, the '
  'share that its second answer sets right, 1 - e+. Below: accuracy of first and second answers, '
  'greedily, on problems that were trained on and on new ones. Lines with ends are 95% intervals '
  'over problems.'
)


def numbers(workdir: epath.Path, results: Mapping[str, Result], seed: int) -> dict[str, dict]:
  """Gathers what report.json holds of each row.

  Args:
    workdir: of the replication.
    results: by row name; what is not finished, starts from what is not, or makes a base policy, is
      left out.
    seed: of all rows.

  Returns:
    By row, what its `row.json` says, `changed_shares`, updates and episodes of its own training and
    with those of what it starts from, and its evaluations: metric -> interval, over problems.

  Raises:
    ValueError: naming the file, if one is broken.
  """
  rows, data = {name: result.row for name, result in results.items()}, {}
  for name, result in results.items():
    row, line = result.row, [*started_from(result.row, rows), result.row]
    every = [results[r.name].seeds.get(seed) for r in line]
    if row.makes_base or None in every:
      continue
    told = every[-1]
    data[name] = {key: told[key] for key in ('num_problems', 'seed', 'commit', 'seconds')}
    data[name] |= {'seeds': [seed], **changed_shares(result)}
    for key in ('updates', 'episodes'):
      counts = [of.get(key, 0) for of in every]
      data[name] |= {key: counts[-1], f'{key}_with_start': sum(counts)}
    for kind in KINDS:
      if kind in row.evaluations:
        path = seed_dir(workdir, name, seed) / f'eval_{kind}' / 'metrics.json'
        metrics = read_json(path, 'delete its folder and row.json')
        data[name][kind] = {key: metrics.get(key) for key in COLUMNS}
  return data


def pictured(results: Mapping[str, Result], data: Mapping[str, dict]) -> dict[str, Any]:
  """What the figure shows.

  Args:
    results: by row name.
    data: of `numbers`.

  Returns:
    'changed' as of `changed_curves`, and of each row that has them 'mended', 1 - e+ as an interval,
    and 'accuracy', split -> turn -> interval.
  """
  shown = {'changed': changed_curves(results), 'mended': {}, 'accuracy': {}}
  for name, row in data.items():
    if missed := row.get('greedy', {}).get('e_plus'):
      ends = {'mean': 'mean', 'low': 'high', 'high': 'low'} if missed['denominator'] else {}
      shown['mended'][name] = missed | {end: 1 - missed[of] for end, of in ends.items()}
    splits = {'held-out': row.get('greedy'), 'training': row.get('train')}
    shown['accuracy'][name] = {
      split: {k: found[k] for k in ('acc_t1', 'acc_t2')}
      for split, found in splits.items()
      if found and found['acc_t2']
    }
  return shown


def _training_lines(results: Mapping[str, Result], data: Mapping[str, dict]) -> str:
  """What each row was trained by, and how long, with what it starts from."""
  lines = []
  for name, row in ((name, results[name].row) for name in data):
    found = data[name]
    if not row.num_steps:
      continue
    own, every = (
      f'{found[f"updates{end}"]:,} updates, {found[f"episodes{end}"]:,} episodes'
      for end in ('', '_with_start')
    )
    line = f'{own if found["updates"] else "supervised"}, from `{row.init or "base"}`'
    if row.init:
      line += f'; with what it starts from {every}'
    stage = row.stage
    lines.append(
      f'- {escape(row.title)} (`{name}`): {line}; reward weights {stage.reward_weight}, bonus '
      f'{stage.bonus}, KL {stage.kl_weight}'
    )
  return '\n'.join(lines) or 'Nothing was trained.'


def _table(results: Mapping[str, Result], data: Mapping[str, dict], kind: str) -> str:
  lines = [
    [
      escape(results[name].row.title),
      *(tables.cell(row[kind][key], key == 'delta') for key in COLUMNS),
    ]
    for name, row in data.items()
    if kind in row
  ]
  return tables.table(['', *COLUMNS.values()], lines) if lines else 'No row has this evaluation.'


def _changed_table(results: Mapping[str, Result], data: Mapping[str, dict]) -> str:
  lines = [
    [escape(results[name].row.title), *(f'{100 * row[key]:.1f}' for key in tables.ENDS)]
    for name, row in data.items()
    if row['changed_first'] is not None
  ]
  return tables.table(['', *tables.ENDS.values()], lines) if lines else 'Nothing was trained.'


def markdown(results: Mapping[str, Result], data: Mapping[str, dict]) -> str:
  """Writes the report's text.

  Args:
    results: by row name.
    data: of `numbers`.

  Returns:
    Markdown, which shows the figure.
  """
  # What is compared goes by the paper's names; a second row of the paper's keeps its own.
  papers = {}
  for name, result in results.items():
    paper = result.row.paper
    papers[paper if paper and paper not in papers else name] = result
  judged = [
    (claim, found)
    for claim, found in orderings.orderings(papers)
    if any(judgement['greedy'] for judgement in found)
  ]
  more_turns = [
    result.row for result in results.values() if len(result.row.stage.reward_weight) > 2
  ]
  parts = [
    '# SCoRe in a few rows',
    tables.header_text(results, {}),
    '## What was trained',
    'Where a row starts from another one, both trainings are counted: rows that are to be compared '
    'should have had the same.',
    _training_lines(results, data),
    f'![{ALT}]({FIGURE})',
    CAPTION,
    "Changed answers in the first of a row's own updates, and means over the tenth of them in "
    'which they are most and over the last tenth, in percent:',
    _changed_table(results, data),
    '## What came of it',
    f'Numbers are percent, with 95% intervals over problems. {tables.E_MEANS}',
  ]
  if more_turns:
    titles = ', '.join(f'“{escape(row.title)}”' for row in more_turns)
    parts.append(
      f'Of {titles}, with more turns, all but the accuracies compare the last two turns.'
    )
  for kind, title in TABLES.items():
    parts += [f'### {title}', _table(results, data, kind)]
  parts += [
    '## What this says',
    'Differences are on the same held-out problems; “not separated”: the 95% interval of the '
    "greedy one holds 0. McNemar's exact two-sided test asks whether two rows are right equally "
    'often.',
    tables.comparison_table(papers, 'greedy'),
    tables.ordering_text(judged),
  ]
  return '\n\n'.join(parts) + '\n'
