"""Two processes of four devices are the same run as one process of eight, or of one."""

import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from score_jax.runs.metrics import read_metrics
from score_jax.runs.restoring import restore_subtree
from score_jax.runs.segments import read_segments

NUM_STEPS = 4


def start(arguments, root, index=0, count=1, port=0, devices=1):
  """Starts one process of a program."""
  environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': str(devices)}
  flags = []
  if count > 1:
    flags = ['--distributed']
    environment |= {
      'JAX_COORDINATOR_ADDRESS': f'localhost:{port}',
      'JAX_NUM_PROCESSES': str(count),
      'JAX_PROCESS_ID': str(index),
      'JAX_CPU_COLLECTIVES_IMPLEMENTATION': 'gloo',
    }
  return subprocess.Popen(
    [sys.executable, '-m', *arguments, *flags],
    cwd=root,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def start_two(arguments, root):
  """Starts both processes of a program, on a port that is free."""
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    port = probe.getsockname()[1]
  return [start(arguments, root, i, 2, port, 4) for i in range(2)]


def training(config, workdir, num_steps=NUM_STEPS):
  """The command line of a run, after `python -m`."""
  return [
    'score_jax.main',
    f'--config={config}',
    f'--workdir={workdir}',
    f'--config.train.num_steps={num_steps}',
    # A policy with mixed rewards, and no steps of Adam's that only rounding gives a direction.
    '--config.model.checkpoint=embedded',
    '--config.optimizer.eps=1e-3',
  ]


def finish(processes):
  """Waits for all; returns their exit statuses and what they printed."""
  outputs = [process.communicate(timeout=240)[0] for process in processes]
  return [process.returncode for process in processes], outputs


def outcome(workdir, num_processes=1):
  """Parameters, metrics without clocks, and episodes in the order of the batch."""
  metrics = [
    {
      k: v
      for k, v in record.items()
      if k.split('/')[0] != 'time' and not k.startswith(('train/graded', 'train/changed'))
    }
    for record in read_metrics(workdir)
  ]
  episodes = [read_segments(workdir / 'episodes', f'process{i:04d}') for i in range(num_processes)]
  return restore_subtree(workdir, 'trainable', step='latest').state, metrics, episodes


@pytest.fixture(scope='module')
def root(request):
  return request.config.rootpath


@pytest.fixture(scope='module')
def single(tiny_run, root, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('single') / 'run'
  statuses, outputs = finish([start(training(tiny_run, workdir), root)])
  assert statuses == [0], outputs
  return outcome(workdir)


def assert_same_run(have, want):
  """Equal up to the rounding of sums over devices."""
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4), have[0], want[0])
  assert [record.keys() for record in have[1]] == [record.keys() for record in want[1]]
  for mine, theirs in zip(have[1], want[1], strict=True):
    for key, value in theirs.items():
      np.testing.assert_allclose(mine[key], value, rtol=2e-3, atol=1e-3, err_msg=key)


def test_two_processes(tiny_run, root, single, tmp_path):
  statuses, outputs = finish(start_two(training(tiny_run, tmp_path), root))
  assert statuses == [0, 0], outputs
  have = outcome(tmp_path, 2)
  assert_same_run(have, single)
  assert any(record['train/mixed_t2'] > 0 for record in have[1])
  # The first process saves the problems that a single one saves first.
  first, second = have[2]
  saved = [record for record in single[2][0] if record['step'] == 1]
  mine = [record for record in first if record['step'] == 1]
  assert mine == saved[: len(mine)] and len(mine) > 0
  assert {r['problem'] for r in second if r['step'] == 1}.isdisjoint(r['problem'] for r in mine)
  # The work directory of two processes is gone on with by one.
  statuses, outputs = finish([start(training(tiny_run, tmp_path, NUM_STEPS + 1), root)])
  assert statuses == [0], outputs
  assert [record['step'] for record in read_metrics(tmp_path)] == list(range(1, NUM_STEPS + 2))


def test_evaluation_by_two_processes(tiny_run, root, tmp_path):
  """10 problems in batches of 8: the second batch is filled up, and the shares are unlike."""
  arguments = ['score_jax.evaluate', f'--config={tiny_run}', '--config.model.checkpoint=embedded']
  arguments += ['--config.eval.batch=8', '--temperature=1']
  statuses, outputs = finish([start([*arguments, f'--workdir={tmp_path / "one"}'], root)])
  assert statuses == [0], outputs
  statuses, outputs = finish(start_two([*arguments, f'--workdir={tmp_path / "two"}'], root))
  assert statuses == [0, 0], outputs
  assert ['10 problems' in output for output in outputs] == [True, False], outputs
  for name in ('metrics.json', 'records.jsonl'):
    assert (tmp_path / 'two' / name).read_text() == (tmp_path / 'one' / name).read_text()


def test_sigterm_to_one_stops_both(tiny_run, root, single, tmp_path):
  processes = start_two(training(tiny_run, tmp_path, 5000), root)
  deadline = time.monotonic() + 200
  while not (tmp_path / 'checkpoints' / '2').exists():
    assert time.monotonic() < deadline and all(p.poll() is None for p in processes)
    time.sleep(0.05)
  processes[1].send_signal(signal.SIGTERM)
  statuses, outputs = finish(processes)
  assert statuses == [143, 143], outputs
  steps = [record['step'] for record in read_metrics(tmp_path)]
  assert steps == list(range(1, steps[-1] + 1))
  assert restore_subtree(tmp_path, 'trainable', step='latest').step == steps[-1]
  # However soon the signal was heard, what was done until then is the run's beginning.
  assert steps[-1] >= 2
  for mine, theirs in zip(read_metrics(tmp_path), single[1], strict=False):
    np.testing.assert_allclose(mine['train/reward_t2'], theirs['train/reward_t2'], atol=1e-3)
