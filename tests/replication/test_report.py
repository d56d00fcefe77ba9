"""The replication's report of a work directory made up here: numbers by loops, known verdicts."""

import json
import re
import struct

import numpy as np
import pytest
from etils import epath

from score_jax.replication import gallery
from score_jax.replication.report import write_report
from score_jax.replication.results import ReportRow

NUM_PROBLEMS = 60
# Row -> chance that a first answer is right, a wrong one set right, a right one spoilt, a wrong one
# that stays wrong changed.
EFFECTS = {
  'base': (0.5, 0.05, 0.3, 0.2),
  'star_d': (0.55, 0.03, 0.02, 0.02),
  'multiturn_rl': (0.6, 0.02, 0.01, 0.02),
  'random_reward': (0.5, 0.05, 0.3, 0.2),
  'score': (0.6, 0.6, 0.0, 0.4),
  'no_bonus': (0.6, 0.5, 0.02, 0.3),
}
ROWS = [
  ReportRow('base', 'Base model', 'method', 'base'),
  ReportRow('self_refine', 'Self-Refine', 'method', 'self_refine', not_applicable='too | small'),
  ReportRow('star_d', 'STaR (D)', 'method', 'star_d'),
  ReportRow('pair_sft_d', 'Pair-SFT (D)', 'method', 'pair_sft_d'),
  ReportRow('last_turn_rl', 'Multi-turn RL, last turn rewarded', 'method'),
  ReportRow('multiturn_rl', 'Multi-turn RL', 'method'),
  ReportRow('random_reward', 'Random rewards', 'method'),
  ReportRow('score', 'SCoRe', 'method', 'score'),
  ReportRow('no_bonus', 'no bonus', 'ablation', 'no_bonus'),
  ReportRow('turns_base', 'Base model, three turns', 'turns', 'turns_base'),
  ReportRow('alpha_0', 'α = 0', 'sweep', sweep='alpha', value=0.0),
  ReportRow('alpha_30', 'α = 30', 'sweep', sweep='alpha', value=30.0),
  ReportRow('k2', 'k2', 'sweep', sweep='KL estimator', value='k2'),
  ReportRow('narrow', 'narrow mixture', 'regime'),
]


def answer_text(digit):
  return f'3 + 4 is {digit}, so the answer is {digit}'


def make_records(rng, effect, num_turns=2, num_problems=NUM_PROBLEMS):
  """Records of an evaluation whose probabilities are `effect`."""
  right_first, corrects, spoils, moves = effect
  records = []
  for n in range(num_problems):
    finals = ['7' if rng.random() < right_first else '5']
    for _ in range(num_turns - 1):
      if finals[-1] == '7':
        now = '6' if rng.random() < spoils else '7'
      elif rng.random() < corrects:
        now = '7'
      else:
        now = str(rng.integers(10, 99)) if rng.random() < moves else finals[-1]
      finals.append(now)
    records.append(
      {
        'id': 1000 + n,
        'level': str(2 + n % 3),
        'answers': [answer_text(final) for final in finals],
        'finals': finals,
        'rewards': [float(final == '7') for final in finals],
      }
    )
  return records


def write_lines(path, records):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(''.join(json.dumps(record) + '\n' for record in records))


def make_votes(rng, gain):
  """Votes in which a parallel sample is right half of the time, and a corrected one more often."""

  def samples(count, right):
    rewards = [float(x) for x in rng.random(count) < right]
    return {
      'finals': ['7' if x else str(rng.integers(10, 13)) for x in rewards],
      'rewards': rewards,
    }

  return [
    {'id': n, 'level': '2', 'parallel': samples(32, 0.4), 'sequential': samples(16, 0.4 + gain)}
    for n in range(NUM_PROBLEMS)
  ]


def make_training(rng, first, last, num_steps=20):
  return [
    {
      'step': step,
      'train/reward_t1': 0.5 + 0.1 * step / num_steps + 0.01 * rng.random(),
      'train/reward_t2': 0.5 + 0.2 * step / num_steps + 0.01 * rng.random(),
      'train/changed_t12': first + (last - first) * (step - 1) / (num_steps - 1),
    }
    for step in range(1, num_steps + 1)
  ]


def make_seed(folder, name, seed, effect, extras=True):
  """One finished seed of a row."""
  rng = np.random.default_rng([seed, *name.encode()])
  for kind in ('greedy', 'sampled', 'fixed') if extras else ('greedy', 'sampled'):
    num_turns = 3 if name.startswith('turns_') else 2
    write_lines(folder / f'eval_{kind}' / 'records.jsonl', make_records(rng, effect, num_turns))
  if name == 'score':
    write_lines(folder / 'eval_turns' / 'records.jsonl', make_records(rng, effect, 10))
    write_lines(folder / 'votes.jsonl', make_votes(rng, 0.35))
  if name in ('score', 'stage1', 'multiturn_rl', 'last_turn_rl', 'narrow'):
    ends = (0.4, 0.3) if name != 'narrow' else (0.4, 0.1)
    write_lines(folder / 'metrics' / 'metrics-00000001.jsonl', make_training(rng, *ends))
  facts = {'commit': 'abc123', 'hardware': 'two cores', 'seconds': 90.0, 'num_problems': 60}
  (folder / 'row.json').write_text(json.dumps(facts))


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """Rows with two and three seeds, one of each kind of trouble, and the report of them."""
  path = epath.Path(tmp_path_factory.mktemp('replication'))
  for name, effect in EFFECTS.items():
    for seed in range(2 if name == 'no_bonus' else 3):
      make_seed(path / name / f'seed{seed}', name, seed, effect)
  for name in ('alpha_0', 'alpha_30', 'k2', 'narrow', 'turns_base'):
    make_seed(path / name / 'seed0', name, 0, EFFECTS['no_bonus'], extras=False)
  (path / 'pair_sft_d' / 'seed0').mkdir(parents=True)
  (path / 'pair_sft_d' / 'error.txt').write_text('Traceback:\n  ...\nValueError: <b>no</b> pairs\n')
  (path / 'no_bonus' / 'seed2').mkdir()
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


def read_seeds(workdir, name, kind='greedy'):
  """All records of a row, by plain means: {seed: {problem: record}}."""
  found = {}
  for seed in range(3):
    path = workdir / name / f'seed{seed}' / f'eval_{kind}' / 'records.jsonl'
    if path.exists():
      lines = path.read_text().splitlines()
      found[seed] = {record['id']: record for record in map(json.loads, lines)}
  return found


def value(record, key):
  before, now = record['rewards'][-2:]
  return {
    'acc_t1': record['rewards'][0],
    'acc_t2': record['rewards'][1],
    'delta': now - before,
    'i2c': float(before == 0 and now == 1),
    'c2i': float(before == 1 and now == 0),
    'changed': float(record['finals'][-1] != record['finals'][-2]),
  }[key]


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
  assert cells[7] == '60.0 / 64.4 / 4.4 / 5.8 / 1.4'


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
  assert text.count('| no bonus (2 of 3 seeds) |') == 4  # two tables and two comparisons


def test_fewer_seeds_are_told(tmp_path):
  path = epath.Path(tmp_path)
  make_seed(path / 'base' / 'seed0', 'base', 0, EFFECTS['base'])
  for seed in range(2):
    make_seed(path / 'score' / f'seed{seed}', 'score', seed, EFFECTS['score'])
  write_report(path, [ROWS[0], ROWS[7]], {})
  text = (path / 'report.md').read_text()
  assert '| Base model (1 of 2 seeds) |' in text and '| SCoRe |' in text


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


def test_edit_shares_and_training_bands(workdir, data):
  shares = data['figures']['edits']['data']['score']['shares']
  same = [
    record['answers'][0] == record['answers'][1]
    for records in read_seeds(workdir, 'score', 'sampled').values()
    for record in records.values()
  ]
  assert shares[0]['mean'] == pytest.approx(np.mean(same))
  assert sum(share['mean'] for share in shares) == pytest.approx(1)
  curves = data['figures']['reward']['data']['score']
  assert curves['steps'] == list(range(1, 21))
  files = [workdir / f'score/seed{seed}/metrics/metrics-00000001.jsonl' for seed in range(3)]
  last = [json.loads(f.read_text().splitlines()[-1])['train/reward_t2'] for f in files]
  band = curves['train/reward_t2']
  assert [band[k][-1] for k in ('mean', 'low', 'high')] == pytest.approx(
    [np.mean(last), min(last), max(last)]
  )


def test_levels_sweeps_and_regimes(workdir, data):
  levels = data['figures']['levels']['data']['score']
  assert list(levels) == ['2', '3', '4'] and levels['2']['problems'] == 20
  gained = [
    value(record, 'i2c')
    for records in read_seeds(workdir, 'score').values()
    for record in records.values()
    if record['level'] == '3'
  ]
  assert levels['3']['i2c']['mean'] == pytest.approx(np.mean(gained))
  alpha = data['figures']['sweep_numbers']['data']['alpha']
  assert [entry['value'] for entry in alpha] == [0.0, 10, 30.0]
  assert alpha[1]['acc_t2'] == data['rows']['score']['greedy']['acc_t2']
  assert list(data['figures']['sweep_labels']['data']) == ['KL estimator']
  regime = data['regimes']['narrow']
  assert regime['changed_first'] == pytest.approx(0.4)
  assert regime['changed_last'] == pytest.approx(0.1 + 0.3 * 0.5 / 19)  # the last two of 20 steps
  assert regime['collapsed'] is True


def test_a_broken_record_is_named(tmp_path):
  path = epath.Path(tmp_path)
  make_seed(path / 'base' / 'seed0', 'base', 0, EFFECTS['base'])
  records = path / 'base' / 'seed0' / 'eval_greedy' / 'records.jsonl'
  records.write_text(records.read_text() + '{"id": 3\n')
  with pytest.raises(ValueError, match=f'records.jsonl:{NUM_PROBLEMS + 1}: not a line of JSON'):
    write_report(path, ROWS[:1], {})
