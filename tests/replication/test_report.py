"""The replication's report of a work directory made up here: numbers by loops, known verdicts."""

import json
import re
import shutil
import struct

import pytest
from etils import epath
from replication_rows import EFFECTS, NUM_PROBLEMS, ROWS, make_rows, make_seed, read_seeds, value

from score_jax.replication import gallery, orderings, report
from score_jax.replication.report import markdown, write_report
from score_jax.replication.results import read_results


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """The rows and the report of them."""
  path = epath.Path(tmp_path_factory.mktemp('replication'))
  make_rows(path)
  about = {
    'task': 'sums',
    'notes': ['A longer run was **tried**.', '<script>alert(1)</script>'],
    'sweep_reference': {'alpha': 10},
  }
  write_report(path, ROWS, about)
  return path


@pytest.fixture(scope='module')
def data(workdir):
  return json.loads((workdir / 'report.json').read_text())


@pytest.mark.parametrize('kind', ['greedy', 'sampled'])
@pytest.mark.parametrize('name', list(EFFECTS))
def test_shares_of_some_problems_are_those_of_a_plain_loop(workdir, data, name, kind):
  pairs = [
    (*record['rewards'], record['truncated'][0])
    for records in read_seeds(workdir, name, kind).values()
    for record in records.values()
  ]
  wanted = {
    'e_minus': [second == 0 for first, second, _ in pairs if first == 1],
    'e_plus': [second == 0 for first, second, _ in pairs if first == 0],
    'i2c_truncated': [cut for first, second, cut in pairs if second > first],
  }
  for key, x in wanted.items():
    found = data['rows'][name][kind][key]
    assert found['denominator'] == len(x) > 0
    assert found['mean'] == pytest.approx(sum(x) / len(x))
    assert 0 <= found['low'] <= found['mean'] <= found['high'] <= 1


def test_a_share_of_nothing_is_null_and_said(tmp_path, monkeypatch):
  monkeypatch.setattr(gallery, 'draw', lambda found, titles: {})
  monkeypatch.setattr(report, 'make_page', lambda *_: '')
  path = epath.Path(tmp_path)
  make_seed(path / 'score' / 'seed0', 'score', 0, (0.0, 0.5, 0.0, 0.0))  # no first answer is right
  write_report(path, [ROWS[7]], {})
  row = json.loads((path / 'report.json').read_text())['rows']['score']
  nothing = {'mean': None, 'low': None, 'high': None, 'denominator': 0}
  assert row['greedy']['e_minus'] == row['sampled']['e_minus'] == nothing
  assert row['greedy']['e_plus']['denominator'] == NUM_PROBLEMS
  assert '| – of 0 |' in (path / 'report.md').read_text()


@pytest.mark.parametrize('kind', ['greedy', 'sampled'])
@pytest.mark.parametrize('name', list(EFFECTS))
def test_means_are_those_of_a_plain_loop(workdir, data, name, kind):
  seeds = read_seeds(workdir, name, kind)
  for key in ('acc_t1', 'acc_t2', 'delta', 'i2c', 'c2i', 'changed'):
    total = count = 0
    for records in seeds.values():
      for record in records.values():
        total += value(record, key)
        count += 1
    found = data['rows'][name][kind][key]
    assert count == NUM_PROBLEMS * (2 if name == 'no_bonus' else 3)
    assert found['mean'] == pytest.approx(total / count)
    assert found['low'] <= found['mean'] <= found['high']
    assert found['low'] >= (-1 if key == 'delta' else 0)


def test_a_table_row_holds_the_measured_and_the_papers_numbers(workdir, data):
  text = (workdir / 'report.md').read_text()
  line = next(line for line in text.splitlines() if line.startswith('| SCoRe |'))
  cells = [cell.strip() for cell in line.strip('|').split('|')]
  keys = ('acc_t1', 'acc_t2', 'delta', 'i2c', 'c2i', 'changed')
  for cell, key in zip(cells[1:7], keys, strict=True):
    found = data['rows']['score']['greedy'][key]
    numbers = [float(x) for x in re.findall(r'[-+]?[0-9.]+', cell)]
    assert numbers == pytest.approx([100 * found[k] for k in ('mean', 'low', 'high')], abs=0.0501)
  assert cells[-1] == '60.0 / 64.4 / 4.4 / 5.8 / 1.4'


def test_each_row_says_its_seeds_and_where_training_took_changed_answers(data):
  rows = data['rows']
  assert rows['score']['seeds'] == [0, 1, 2] and rows['no_bonus']['seeds'] == [0, 1]
  assert rows['self_refine']['seeds'] == [] and rows['score']['runs']['1']['commit'] == 'abc123'
  names = [f'changed_{end}' for end in ('first', 'last', 'peak')]
  assert [rows['base'][name] for name in names] == [None] * 3
  # A line from 0.4 to 0.3, whose last tenth are the last two of 20 updates, the first one its peak.
  step = 0.1 / 19
  want = [0.4, 0.3 + step / 2, 0.4 - step / 2]
  assert [rows['score'][name] for name in names] == pytest.approx(want)


def test_rows_with_training_problems_have_a_table_of_them(tmp_path, monkeypatch):
  monkeypatch.setattr(gallery, 'draw', lambda found, titles: {})
  monkeypatch.setattr(report, 'make_page', lambda *_: '')
  path = epath.Path(tmp_path)
  for name in ('base', 'score'):
    make_seed(path / name / 'seed0', name, 0, EFFECTS[name])
  greedy = path / 'score' / 'seed0' / 'eval_greedy'
  shutil.copytree(greedy, path / 'score' / 'seed0' / 'eval_train')
  write_report(path, [ROWS[0], ROWS[7]], {})
  rows = json.loads((path / 'report.json').read_text())['rows']
  assert rows['score']['train'] == rows['score']['greedy'] and rows['base']['train'] == {}
  table = (path / 'report.md').read_text().split('## On the problems that were trained on')[1]
  assert '| SCoRe |' in table.split('##')[0] and 'Base model' not in table.split('##')[0]


def test_each_ordering_has_its_verdict(data):
  verdicts = {(j['claim'], j['other'], j['metric']): j['verdict'] for j in data['orderings']}
  assert verdicts['delta_above_baselines', 'base', 'delta'] == 'held'
  assert verdicts['delta_above_baselines', 'star_d', 'delta'] == 'held'
  assert verdicts['delta_above_baselines', 'pair_sft_d', 'delta'] == 'not measured'
  assert ('delta_above_baselines', 'self_refine', 'delta') not in verdicts
  assert verdicts['changes_more_answers', 'multiturn_rl', 'changed'] == 'held'
  assert verdicts['delta_falls_in_ablations', 'no_bonus', 'delta'] == 'not separated'
  assert verdicts['sequential_beats_parallel', '', 'voted accuracy'] == 'held'
  assert verdicts['random_reward_gains_nothing', 'base', 'acc_t2'] == 'held'


def test_no_row_is_dropped(workdir):
  text = (workdir / 'report.md').read_text()
  methods = text[text.index('## Methods') : text.index('## Ablations')]
  for row in ROWS:
    if row.group == 'method':
      assert len(re.findall(rf'\n\| {re.escape(row.title)}( \||: \*)', methods)) == 2
  assert '| Self-Refine: *not applicable: too \\| small* | – |' in methods
  assert 'failed: ValueError: \\<b\\>no\\</b\\> pairs' in methods
  assert '| Multi-turn RL, last turn rewarded: *not finished* |' in methods
  assert '| `no_bonus` | no bonus | not finished: seed 2 | 0, 1 | 180 |' in text
  # Two tables and two comparisons, which have no seed but those of both.
  assert text.count('| no bonus (2 of 3 seeds, without 2) |') == 2
  assert text.count('| no bonus (2 of 3 seeds) |') == 2


def test_fewer_seeds_are_told(tmp_path):
  path = epath.Path(tmp_path)
  make_seed(path / 'base' / 'seed0', 'base', 0, EFFECTS['base'])
  for seed in range(2):
    make_seed(path / 'score' / f'seed{seed}', 'score', seed, EFFECTS['score'])
  results = read_results(path, [ROWS[0], ROWS[7]])
  found, judged = gallery.collect(results, {}), orderings.orderings(results)
  text = markdown(results, {}, found, judged)
  assert '| Base model (1 of 2 seeds, without 1) |' in text and '| SCoRe |' in text


def test_a_seed_that_no_row_has_is_told(tmp_path, monkeypatch):
  monkeypatch.setattr(gallery, 'draw', lambda found, titles: {})
  monkeypatch.setattr(report, 'make_page', lambda *_: '')
  path = epath.Path(tmp_path)
  for name, row in (('base', ROWS[0]), ('score', ROWS[7])):
    make_seed(path / name / 'seed0', name, 0, EFFECTS[name])
    assert row.name == name
  write_report(path, [ROWS[0], ROWS[7]], {}, seeds=range(2))
  text = (path / 'report.md').read_text()
  assert text.count('| SCoRe (1 of 2 seeds, without 1) |') == 4
  assert '| `score` | SCoRe | not finished: seed 1 | 0 | 90 |' in text
  assert (
    '(1 of 2 seeds); sampled' in text and 'Not shown: Base model, seed 1; SCoRe, seed 1.' in text
  )
  write_report(path, [ROWS[0], ROWS[7]], {}, seeds=range(1))
  assert 'without 1' not in (path / 'report.md').read_text()


def test_an_empty_work_directory_has_a_report(tmp_path):
  write_report(epath.Path(tmp_path), ROWS, {})
  text = (epath.Path(tmp_path) / 'report.md').read_text()
  assert text.count(': *not finished* |') == 23
  assert text.count('Not drawn: ') == len(gallery.plates())
  assert not list(epath.Path(tmp_path).glob('figures/*'))


def test_every_figure_is_written_and_shown(workdir):
  text = (workdir / 'report.md').read_text()
  for name in gallery.plates():
    png = (workdir / 'figures' / f'{name}.png').read_bytes()
    width, height = struct.unpack('>II', png[16:24])
    assert png.startswith(b'\x89PNG') and len(png) > 15_000
    assert width == 1200 and height >= 250
    assert f'(figures/{name}.png)' in text
  assert 'Not shown: Self-Refine (not applicable: too \\| small)' in text


def test_the_page_needs_no_other_file(workdir):
  page = (workdir / 'report.html').read_text()
  sources = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', page)
  assert len(sources) == len(gallery.plates())
  assert all(source.startswith('data:image/png;base64,') for source in sources)
  assert 'http' not in re.sub('base64,[^"]*', '', page) and 'url(' not in page
  assert '<script' not in page and '&lt;script&gt;' in page
  assert '<strong>tried</strong>' in page and '&lt;b&gt;no&lt;/b&gt; pairs' in page
  assert page.count('<table>') == 10


def test_the_header_tells_where_numbers_come_from(workdir):
  head = (workdir / 'report.md').read_text().split('##')[0]
  for text in ('commit: abc123', 'hardware: two cores', 'seeds: 0, 1, 2', 'task: sums'):
    assert f'- {text}' in head
  assert f'- held-out problems: {NUM_PROBLEMS}' in head
  assert '- time: 33 min for all finished seeds' in head  # 22 seeds of 90 s
  assert '95% interval' in head


def test_no_share_of_the_report_is_out_of_range(data):
  found = []

  def walk(value, name):
    if isinstance(value, dict) and {'mean', 'low', 'high'} <= value.keys():
      found.append((name, value))
    elif isinstance(value, dict | list):
      for key, x in value.items() if isinstance(value, dict) else enumerate(value):
        walk(x, f'{name}.{key}')

  walk(data, '')
  signed = re.compile(r'delta|difference|comparisons|orderings|fixed\.data')
  shares = [(name, x) for name, x in found if not signed.search(name)]
  assert sum('levels' in name for name, _ in shares) == 12
  assert sum('scaling' in name for name, _ in shares) == 10
  for name, x in shares:
    if isinstance(x['mean'], float):  # not the curves of training
      assert 0 <= x['low'] <= x['mean'] <= x['high'] <= 1, name
