"""The short report of rows made up here: any names, some missing, some without an evaluation."""

import dataclasses
import json
import re

import numpy as np
import pytest
from etils import epath
from replication_rows import PLAIN, make_records, make_training, write_lines

from score_jax.analysis.statistics import share, summarise
from score_jax.objective.stages import stage2_of_three_turns
from score_jax.replication.report import write_short_report
from score_jax.replication.rows import ReplicationRow

KEYS = ('acc_t1', 'acc_t2', 'delta', 'i2c', 'c2i', 'changed', 'e_minus', 'e_plus', 'i2c_truncated')
EVALUATIONS = ('greedy', 'sampled', 'train')
SEED = 5


def row(name, init='', num_steps=20, evaluations=EVALUATIONS, paper=''):
  title = f'The $row^$ | {name}'
  return ReplicationRow(
    name, title, 'method', PLAIN, num_steps, init, evaluations=evaluations, paper=paper
  )


ROWS = (
  row('start', num_steps=0, paper='base'),
  row('first'),
  row('ours', 'first', paper='score'),
  row('theirs', num_steps=40, evaluations=('greedy',)),
  row('quiet', 'ours', evaluations=('sampled', 'fixed')),
)


def make_row(path, of, effect=(0.6, 0.5, 0.1, 0.3)):
  """A finished seed of a row, with every file that a run leaves."""
  folder, rng = path / of.name / f'seed{SEED}', np.random.default_rng([*of.name.encode()])
  for kind in of.evaluations:
    records = [r | {'tokens': [3, 4]} for r in make_records(rng, effect)]
    write_lines(folder / f'eval_{kind}' / 'records.jsonl', records)
    (folder / f'eval_{kind}' / 'metrics.json').write_text(json.dumps(summarise(records)))
  if of.num_steps:
    metrics = folder / 'metrics' / 'metrics-00000001.jsonl'
    write_lines(metrics, make_training(rng, 0.2, 0.6, of.num_steps))
  told = {'commit': 'abc', 'seconds': 2.5, 'num_problems': 60, 'seed': SEED, 'hardware': 'x'}
  counts = {'updates': of.num_steps, 'episodes': 512 * of.num_steps}
  (folder / 'row.json').write_text(json.dumps(told | counts))


def report(path, rows, **effects):
  path = epath.Path(path)
  for of in rows:
    make_row(path, of, **effects)
  write_short_report(path, rows, SEED)
  png = (path / 'training.png').read_bytes()
  assert png.startswith(b'\x89PNG') and len(png) > 15_000
  return json.loads((path / 'report.json').read_text())['rows'], (path / 'report.md').read_text()


def test_numbers_and_text_of_rows_of_any_names(tmp_path):
  data, text = report(tmp_path, ROWS)
  assert list(data) == [of.name for of in ROWS]
  counts = ('updates', 'updates_with_start', 'episodes_with_start')
  assert {name: [found[key] for key in counts] for name, found in data.items()} == {
    'start': [0, 0, 0],
    'first': [20, 20, 512 * 20],
    'ours': [20, 40, 512 * 40],
    'theirs': [40, 40, 512 * 40],
    'quiet': [20, 60, 512 * 60],
  }
  for of in ROWS:
    found = data[of.name]
    assert found['seeds'] == [SEED] and not {*EVALUATIONS, 'fixed'} - {*of.evaluations} & {*found}
    for kind in of.evaluations:
      path = tmp_path / of.name / f'seed{SEED}' / f'eval_{kind}' / 'metrics.json'
      metrics = json.loads(path.read_text())
      assert found[kind] == {key: metrics[key] for key in KEYS}
    changed = [found[f'changed_{end}'] for end in ('first', 'last', 'peak')]
    if of.name == 'start':
      assert changed == [None] * 3
    else:  # a line from 0.2 to 0.6; the last tenth is of two or of four updates
      last = 0.6 - 0.4 * (0.5 if of.num_steps == 20 else 1.5) / (of.num_steps - 1)
      assert changed == pytest.approx([0.2, last, last])
  name = r'The $row^$ \| ours'
  assert (
    f'- {name} (`ours`): 20 updates, 10,240 episodes, from `first`; with what it starts' in text
  )
  assert 'starts from 40 updates, 20,480 episodes; reward weights' in text
  # A line in the table of each evaluation that a row has, and one of changed answers.
  tables = {
    of.name: len(re.findall(rf'^\| The \$row\^\$ \\\| {of.name} \|', text, re.M)) for of in ROWS
  }
  assert (tables['ours'], tables['quiet']) == (4, 2)
  greedy = text[
    text.index('### Held-out problems, greedy') : text.index('### Held-out problems, s')
  ]
  line = next(line for line in greedy.splitlines() if 'ours' in line)
  e_plus = data['ours']['greedy']['e_plus']
  count = e_plus['denominator']
  assert share(round(e_plus['mean'] * count), count)['mean'] == e_plus['mean']
  assert f'{100 * e_plus["mean"]:.1f} [' in line and f'] of {count} |' in line
  assert '![Changed answers in training' in text and '(training.png)' in text


def test_a_base_alone_and_rows_that_are_not_there_have_a_report(tmp_path):
  data, text = report(tmp_path / 'alone', ROWS[:1])
  assert list(data) == ['start'] and text.count('Nothing was trained.') == 2
  make = dataclasses.replace(row('made'), run='pretrain')
  path = epath.Path(tmp_path / 'more')
  make_row(path, ROWS[3])
  make_row(path, make)
  write_short_report(path, [make, *ROWS[2:]], SEED)  # of which one is there
  assert list(json.loads((path / 'report.json').read_text())['rows']) == ['theirs']
  assert '- rows: 2 of 4 have numbers' in (path / 'report.md').read_text()


def test_a_row_that_is_always_right_has_nothing_to_mend(tmp_path):
  data, text = report(tmp_path, ROWS[:2], effect=(1.0, 0.0, 0.0, 0.0))
  nothing = {'mean': None, 'low': None, 'high': None, 'denominator': 0}
  assert data['first']['greedy']['e_plus'] == data['first']['train']['i2c_truncated'] == nothing
  assert text.count('| – of 0 | – of 0 |') == 6


def test_what_compares_the_last_two_of_more_turns_is_said(tmp_path):
  three = dataclasses.replace(ROWS[1], stage=stage2_of_three_turns(2.0, 0.1))
  assert 'compare the last two turns' not in report(tmp_path, ROWS[:2])[1]
  write_short_report(epath.Path(tmp_path), [ROWS[0], three], SEED)
  told = r'Of “The $row^$ \| first”, with more turns, all but the accuracies compare the last two'
  assert told in (tmp_path / 'report.md').read_text()


def test_rows_of_the_same_row_of_the_paper_are_all_compared(tmp_path):
  rows = [*(row(name, paper='base') for name in 'ab'), *(row(name, paper='score') for name in 'cd')]
  _, text = report(tmp_path, rows)
  compared = text[text.index('| SCoRe minus |') :]
  assert re.findall(r'^\| The \$row\^\$ \\\| (.) \|', compared, re.M) == ['a', 'b', 'd']


def test_a_row_whose_start_is_to_be_made_again_is_left_out(tmp_path):
  path = epath.Path(tmp_path)
  make_row(path, ROWS[1])
  make_row(path, ROWS[2])
  (path / 'first' / f'seed{SEED}' / 'row.json').unlink()
  write_short_report(path, ROWS[1:3], SEED)
  assert json.loads((path / 'report.json').read_text())['rows'] == {}


@pytest.mark.filterwarnings('error')
def test_long_titles_and_many_rows_have_a_figure(tmp_path):
  rows = [row(f'r{n}', f'r{n - 1}' if n % 3 else '') for n in range(9)]
  rows = [dataclasses.replace(of, title=f'{of.title}, {"a title of words " * 5}') for of in rows]
  report(tmp_path, rows)


def test_an_evaluation_of_an_earlier_version_lacks_what_it_did_not_say(tmp_path):
  path = epath.Path(tmp_path)
  make_row(path, ROWS[1])
  metrics = path / 'first' / f'seed{SEED}' / 'eval_greedy' / 'metrics.json'
  found = json.loads(metrics.read_text())
  metrics.write_text(json.dumps({key: found[key] for key in KEYS[:6]}))
  write_short_report(path, [ROWS[1]], SEED)
  row_found = json.loads((path / 'report.json').read_text())['rows']['first']
  assert row_found['greedy']['e_minus'] is None and row_found['train']['e_minus']
  assert '| – | – | – |' in (path / 'report.md').read_text()
