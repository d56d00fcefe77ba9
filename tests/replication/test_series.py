"""The numbers of the figures, held against plain loops over the records."""

import dataclasses
import json

import numpy as np
import pytest
from etils import epath
from replication_rows import ROWS, make_rows, read_seeds, value

from score_jax.replication import gallery, series
from score_jax.replication.results import interval, read_results


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  path = epath.Path(tmp_path_factory.mktemp('replication'))
  make_rows(path)
  return path


@pytest.fixture(scope='module')
def results(workdir):
  return read_results(workdir, ROWS)


def test_edit_shares(workdir, results):
  shares = series.edits(results).data['score']['shares']
  same = [
    record['answers'][0] == record['answers'][1]
    for records in read_seeds(workdir, 'score', 'sampled').values()
    for record in records.values()
  ]
  assert shares[0]['mean'] == pytest.approx(np.mean(same))
  assert sum(share['mean'] for share in shares) == pytest.approx(1)


def test_training_bands(workdir, results):
  curves = series.training('train/reward_t1', 'train/reward_t2')(results).data['score']
  assert curves['steps'] == list(range(1, 21))
  files = [workdir / f'score/seed{seed}/metrics/metrics-00000001.jsonl' for seed in range(3)]
  last = [json.loads(f.read_text().splitlines()[-1])['train/reward_t2'] for f in files]
  band = curves['train/reward_t2']
  assert [band[k][-1] for k in ('mean', 'low', 'high')] == pytest.approx(
    [np.mean(last), min(last), max(last)]
  )


def test_levels(workdir, results):
  levels = series.levels(results).data['score']
  assert list(levels) == ['2', '3', '4'] and levels['2']['problems'] == 20
  gained = [
    value(record, 'i2c')
    for records in read_seeds(workdir, 'score').values()
    for record in records.values()
    if record['level'] == '3'
  ]
  assert levels['3']['i2c']['mean'] == pytest.approx(np.mean(gained))


def test_sweeps(results):
  found = gallery.collect(results, {'alpha': 10})
  alpha = found['sweep_numbers'].data['alpha']
  assert [entry['value'] for entry in alpha] == [0.0, 10, 30.0]
  assert alpha[1]['acc_t2'] == interval(results['score'], 'greedy', 'acc_t2')
  assert list(found['sweep_labels'].data) == ['KL estimator']


def test_regimes(workdir, results):
  regime = series.regimes(results).data['narrow']
  assert regime['changed_first'] == pytest.approx(0.4)
  assert regime['changed_last'] == pytest.approx(0.1 + 0.3 * 0.5 / 19)  # the last two of 20 steps
  assert regime['collapsed'] is True
  # What learns to correct and then stops has collapsed, however little it changed at first.
  narrow = results['narrow']
  for shares, collapsed in (([0.2, 0.9, 0.2], True), ([0.2, 0.5, 0.2], False), ([0.2] * 3, False)):
    training = {0: [{'step': n, 'train/changed_t12': x} for n, x in enumerate(shares, start=1)]}
    found = series.regimes({'narrow': dataclasses.replace(narrow, training=training)})
    assert found.data['narrow']['collapsed'] is collapsed
  [records] = read_seeds(workdir, 'narrow', 'sampled').values()
  left = [1 - value(r, 'i2c') for r in records.values() if r['rewards'][0] == 0]
  assert regime['e_plus']['mean'] == pytest.approx(np.mean(left))
  assert regime['e_plus']['denominator'] == len(left)
