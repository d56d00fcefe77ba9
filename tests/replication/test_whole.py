"""What a report does with a finished seed whose files are not what its row.json says."""

import json
import re

import numpy as np
import pytest
from etils import epath
from replication_rows import EFFECTS, NUM_PROBLEMS, ROWS, make_seed, read_seeds, value

from score_jax.replication import gallery
from score_jax.replication.gallery import path_of
from score_jax.replication.report import write_report
from score_jax.replication.rows import EVALUATIONS
from score_jax.runs.segments import SegmentedLog


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
  monkeypatch.setattr(gallery, 'draw', lambda found, titles: {path_of(name): b'' for name in found})


@pytest.mark.parametrize(
  'damage',
  [
    'cut',
    'half a line',
    'no file',
    'twice',
    'earlier row.json',
    'NaN',
    'no key',
    'cut off?',
    'list',
  ],
)
def test_what_is_not_whole_is_left_out_and_named(tmp_path, damage):
  """Of 20 problems SCoRe may look worse than of 60: half of a file is no evaluation."""
  path, rows = epath.Path(tmp_path), [ROWS[0], ROWS[7]]
  for name in ('base', 'score'):
    for seed in range(2):
      make_seed(path / name / f'seed{seed}', name, seed, EFFECTS[name])
      told = {'num_problems': 500, 'records': dict.fromkeys(EVALUATIONS, NUM_PROBLEMS)}
      if damage == 'earlier row.json':
        told = {'num_problems': NUM_PROBLEMS}
      (path / name / f'seed{seed}' / 'row.json').write_text(json.dumps(told | {'seconds': 1}))
  write_report(path, rows, {})
  before = json.loads((path / 'report.json').read_text())
  assert before['rows']['score']['state'] == 'finished'
  alone = [value(r, 'acc_t2') for r in read_seeds(path, 'score')[0].values()]
  records = path / 'score' / 'seed1' / 'eval_greedy' / 'records.jsonl'
  lines = records.read_text().splitlines(keepends=True)
  wrong, told = {
    'cut': (''.join(lines[:20]), 'has 20 of 60 problems'),
    'half a line': (''.join(lines)[:-30], f'{NUM_PROBLEMS}: not a line of JSON'),
    'no file': ('', 'is missing'),
    'twice': (''.join(lines[:59] + lines[:1]), 'has 60 records of 59 problems'),
    'earlier row.json': (''.join(lines[:-1]), 'has 59 of 60 problems'),
    'NaN': (
      re.sub(r'"rewards": .[01].0', '"rewards": [NaN', lines[0]) + ''.join(lines[1:]),
      'records.jsonl:1: no record',
    ),
    'no key': (
      ''.join([lines[0].replace('"finals"', '"x"'), *lines[1:]]),
      'records.jsonl:1: no rec',
    ),
    'cut off?': (
      re.sub(r'"truncated": [^]]*', '"truncated": [true', lines[0]) + ''.join(lines[1:]),
      'records.jsonl:1: no record',
    ),
    'list': (''.join(['[]\n', *lines[1:]]), 'records.jsonl:1: no record of an evaluation'),
  }[damage]
  records.write_text(wrong)
  if damage == 'no file':
    records.unlink()
  write_report(path, rows, {})
  after, text = json.loads((path / 'report.json').read_text()), (path / 'report.md').read_text()
  # As if the seed had no such evaluation, and not as if it were one of fewer problems.
  assert after['rows']['score']['greedy']['acc_t2']['mean'] == pytest.approx(np.mean(alone))
  assert after['rows']['score']['sampled'] == before['rows']['score']['sampled']
  assert told in after['rows']['score']['state']
  assert 'seed1/eval_greedy/records.jsonl' in after['rows']['score']['state']
  methods = text[text.index('## Methods') : text.index('## Ablations')]
  assert methods.count('| SCoRe (1 of 2 seeds, without 1) |') == methods.count('| SCoRe |') == 1
  assert '| Base model (1 of 2 seeds) |' in text and '(1 of 2 seeds)' in text.split('orderings')[1]
  assert '- not whole, and marked in every table: SCoRe (seed1/' in text


def test_training_metrics_that_are_cut_are_no_curve(tmp_path):
  path, rows = epath.Path(tmp_path), [ROWS[7]]
  for seed in range(2):
    make_seed(path / 'score' / f'seed{seed}', 'score', seed, EFFECTS['score'])
    (path / 'score' / f'seed{seed}' / 'row.json').write_text('{"updates": 20}')
  metrics = path / 'score' / 'seed0' / 'metrics' / 'metrics-00000001.jsonl'
  first = json.loads(metrics.read_text().splitlines()[0])['train/reward_t1']
  other = path / 'score' / 'seed1' / 'metrics' / 'metrics-00000001.jsonl'
  other.write_text(''.join(other.read_text().splitlines(keepends=True)[:12]))
  write_report(path, rows, {})
  data = json.loads((path / 'report.json').read_text())
  assert 'seed1/metrics has 12 of 20 updates' in data['rows']['score']['state']
  curve = data['figures']['reward']['data']['score']['train/reward_t1']
  assert len(curve['mean']) == 20 and curve['mean'][0] == curve['high'][0] == first
  assert 'SCoRe, seed 1' in data['figures']['reward']['missing']


@pytest.mark.parametrize('first', [1, 6, 16, None])
def test_a_lost_segment_leaves_no_hole_in_a_curve(tmp_path, first):
  """Also of earlier versions, which had no index of segments and did not say how many updates."""
  path, rows = epath.Path(tmp_path), [ROWS[7]]
  for seed in range(2):
    make_seed(path / 'score' / f'seed{seed}', 'score', seed, EFFECTS['score'])
  metrics = path / 'score' / 'seed1' / 'metrics'
  [whole] = metrics.glob('*.jsonl')
  records = [json.loads(line) for line in whole.read_text().splitlines()]
  whole.unlink()
  log = SegmentedLog(metrics, 'metrics')
  log.rewind(0)
  for record in records:
    log.append(record)
    if record['step'] % 5 == 0:
      log.cut(record['step'])
  lost = metrics / f'metrics-{first or 6:08d}.jsonl'
  lost.unlink()
  told = f'seed1/metrics/{lost.name} is missing, with 5 records from step {first} on'
  if first is None:
    (metrics / 'metrics.index.json').unlink()
    told = 'seed1/metrics has 15 of 20 updates'
  write_report(path, rows, {})
  data = json.loads((path / 'report.json').read_text())
  assert data['rows']['score']['state'] == told
  assert 'SCoRe, seed 1' in data['figures']['reward']['missing']
  assert told in (path / 'report.md').read_text()
