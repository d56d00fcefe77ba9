"""Metrics: JSON lines and TensorBoard's files, resumed or not."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from makers import read_events

from score_jax.runs import metrics


def test_metrics_come_back_from_json_lines_and_from_tensorboard(tmp_path):
  log = metrics.MetricsLog(tmp_path)
  log.rewind(-1)
  for step in range(4):
    log.write(step, {'train/loss': jnp.float32(step / 4), 'eval/acc_t1': np.nan, 'time/step_s': 1})
    if step == 2:
      log.cut(step)
  log.close()
  records = metrics.read_metrics(tmp_path)
  assert [r['train/loss'] for r in records] == [0, 0.25, 0.5, 0.75]
  assert all(r['eval/acc_t1'] is None for r in records)
  paths = sorted((tmp_path / 'tensorboard').iterdir())
  assert [p.name.split('.')[3] for p in paths] == ['00000000', '00000003']
  found = read_events(paths[0]) | read_events(paths[1])
  assert {k: v[0] for k, v in found.items() if k[0] == 'train/loss'} == {
    ('train/loss', s): s / 4 for s in range(4)
  }
  assert not any(tag == 'eval/acc_t1' for tag, _ in found)
  assert math.isclose(found['train/loss', 3][1], records[3]['time/unix_s'])


def test_resumed_metrics_rewrite_their_event_files(tmp_path):
  def run(start, stop):
    log = metrics.MetricsLog(tmp_path)
    log.rewind(start - 1)
    for step in range(start, stop):
      log.write(step, {'train/loss': step + 100 * (start > 0)})
      if step % 5 == 0:
        log.cut(step)
    log.close()

  run(0, 14)
  run(6, 12)
  steps = {}
  for path in sorted((tmp_path / 'tensorboard').iterdir()):
    steps |= {k[1]: v[0] for k, v in read_events(path).items() if k[0] == 'train/loss'}
  assert steps == {s: s + 100 * (s > 5) for s in range(12)}


def test_only_process_0_writes_and_metrics_are_numbers(tmp_path):
  other = metrics.MetricsLog(tmp_path / 'other', process_index=1)
  other.rewind(-1)
  other.write(0, {'train/loss': 1.0})
  other.cut(0)
  other.close()
  assert not (tmp_path / 'other').exists()
  log = metrics.MetricsLog(tmp_path)
  with pytest.raises(ValueError, match='train/kl of step 2 must be one number'):
    log.write(2, {'train/kl': np.zeros(2)})
