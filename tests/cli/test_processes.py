"""Two processes of four devices are the same run as one process of eight, or of one.

Run as a program, this file is `score_jax.main` with a watchdog that looks every three seconds.
"""

import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from score_jax.cli.distributed import is_first_process
from score_jax.runs.metrics import read_metrics
from score_jax.runs.restoring import restore_params
from score_jax.runs.segments import read_segments
from score_jax.runs.watchdog import STATUS

NUM_STEPS = 4


@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
  """Most starts compile what another one did."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path_factory.mktemp('cache')))
    patch.setenv('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
    yield


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


def training(config, workdir, num_steps=NUM_STEPS, program='score_jax.main'):
  """The command line of a run, after `python -m`."""
  return [
    program,
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
      if k.split('/')[0] not in ('time', 'device', 'host')
      and not k.startswith(('train/graded', 'train/changed'))
    }
    for record in read_metrics(workdir)
  ]
  episodes = [read_segments(workdir / 'episodes', f'process{i:04d}') for i in range(num_processes)]
  return restore_params(workdir, step='latest').params, metrics, episodes


@pytest.fixture(scope='module')
def root(request):
  return request.config.rootpath


@pytest.fixture(scope='module')
def single(tiny_run, root, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('single') / 'run'
  statuses, outputs = finish([start(training(tiny_run, workdir), root)])
  assert statuses == [0], outputs
  return outcome(workdir)


@pytest.mark.parametrize('first', ['0', 'file/0'], ids=['elsewhere', 'impossible'])
def test_processes_that_share_no_directory_are_refused(tiny_run, root, tmp_path, first):
  (tmp_path / 'file').touch()
  workdirs = [tmp_path / first, tmp_path / '1']
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    port = probe.getsockname()[1]
  statuses, outputs = finish(
    [start(training(tiny_run, x), root, i, 2, port, 1) for i, x in enumerate(workdirs)]
  )
  assert statuses == [2, 2], outputs
  for workdir, output in zip(workdirs, outputs, strict=True):
    assert f'{workdir} is not one directory for all processes' in output
    assert f'processes {"[1]" if first == "0" else "[0, 1]"} do not see' in output
  assert not list(tmp_path.glob('*/*'))


def assert_same_run(have, want):
  """Equal up to the rounding of sums over devices."""
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4), have[0], want[0])
  assert [record.keys() for record in have[1]] == [record.keys() for record in want[1]]
  for mine, theirs in zip(have[1], want[1], strict=True):
    for key, value in theirs.items():
      np.testing.assert_allclose(mine[key], value, rtol=2e-3, atol=1e-3, err_msg=key)


@pytest.fixture(scope='module')
def double(tiny_run, root, tmp_path_factory):
  """The work directory of an uninterrupted run of two processes."""
  workdir = tmp_path_factory.mktemp('double') / 'run'
  statuses, outputs = finish(start_two(training(tiny_run, workdir), root))
  assert statuses == [0, 0], outputs
  return workdir


def wait_for_checkpoint(workdir, step, processes):
  """Waits until a run has saved a step."""
  deadline = time.monotonic() + 200
  while not (workdir / 'checkpoints' / str(step)).exists():
    assert time.monotonic() < deadline and all(p.poll() is None for p in processes)
    time.sleep(0.05)


def test_two_processes(tiny_run, root, single, double, tmp_path):
  shutil.copytree(double, tmp_path, dirs_exist_ok=True)
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


def test_restored_on_fewer_devices(tiny_run, root, single, tmp_path):
  """A run of 8 devices goes on on 4 and then on 1, and is the run of 1."""
  for num_steps, devices, mesh in [(2, 8, (2, 4, 1)), (3, 4, (1, 4, 1)), (NUM_STEPS, 1, (1, 1, 1))]:
    command = [*training(tiny_run, tmp_path, num_steps), f'--config.mesh={mesh}']
    statuses, outputs = finish([start(command, root, devices=devices)])
    assert statuses == [0], outputs
  have = outcome(tmp_path)
  assert_same_run(have, single)
  assert have[2][0][0] == single[2][0][0]


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


def test_the_first_process(monkeypatch):
  assert is_first_process({'JAX_PROCESS_ID': '1'}, False)
  assert [is_first_process({'SCORE_PROCESS_ID': i}, True) for i in ('0', '10')] == [True, False]
  with pytest.raises(ValueError, match='JAX_NUM_PROCESSES'):
    is_first_process({'JAX_PROCESS_ID': '1'}, True)
  # Where the environment does not say, another process asks jax; nothing here has an accelerator.
  answers = []

  def asked(command, **_):
    assert 'jax.distributed.initialize()' in command[-1]
    return subprocess.CompletedProcess(command, *answers.pop())

  monkeypatch.setattr(subprocess, 'run', asked)
  for stdout, is_first in (('index 0\n', True), ('noise\nindex 10\n', False)):
    answers.append((0, stdout))
    assert is_first_process({}, True) == is_first
  answers.append((1, ''))
  with pytest.raises(RuntimeError, match='did not find each other'):
    is_first_process({}, True)


def test_an_evaluation_that_hangs_ends(tiny_run, root, tmp_path):
  """It would have to compile faster than 0.3 s."""
  arguments = ['score_jax.evaluate', f'--config={tiny_run}', '--config.model.checkpoint=embedded']
  arguments += ['--config.train.hang_s=0.3', f'--workdir={tmp_path}']
  (status,), (output,) = finish([start(arguments, root)])
  assert status == STATUS, output
  assert 'no progress for 0.3 s: process 0 is at step 0 (start)' in output
  assert not (tmp_path / 'metrics.json').exists()


def test_sigterm_ends_what_has_no_handler(run_python):
  """A run that is loading, an evaluation: jax would take the signal for its own."""
  program = (
    'import os, signal, time; from absl import flags; from score_jax import distributed\n'
    'flags.FLAGS(["", "--distributed"])\n'
    'distributed.join()\n'
    'os.kill(os.getpid(), signal.SIGTERM)\n'
    'time.sleep(10)\n'
  )
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    address = f'localhost:{probe.getsockname()[1]}'
  numbers = {'JAX_NUM_PROCESSES': '1', 'JAX_PROCESS_ID': '0'}
  done = run_python('-c', program, timeout_s=100, JAX_COORDINATOR_ADDRESS=address, **numbers)
  assert done.returncode == -signal.SIGTERM, done.stderr


def test_sigterm_to_one_stops_both(tiny_run, root, single, tmp_path):
  processes = start_two(training(tiny_run, tmp_path, 5000), root)
  wait_for_checkpoint(tmp_path, 2, processes)
  processes[1].send_signal(signal.SIGTERM)
  statuses, outputs = finish(processes)
  assert statuses == [143, 143], outputs
  steps = [record['step'] for record in read_metrics(tmp_path)]
  assert steps == list(range(1, steps[-1] + 1))
  assert restore_params(tmp_path, step='latest').step == steps[-1]
  # However soon the signal was heard, what was done until then is the run's beginning.
  assert steps[-1] >= 2
  for mine, theirs in zip(read_metrics(tmp_path), single[1], strict=False):
    np.testing.assert_allclose(mine['train/reward_t2'], theirs['train/reward_t2'], atol=1e-3)


def lose(tiny_run, root, workdir, index, how):
  """Starts a run, loses one of its two processes, and returns status and output of the other."""
  command = training(tiny_run, workdir, 5000, 'tests.test_processes')
  processes = start_two(command, root)
  try:
    wait_for_checkpoint(workdir, 2, processes)
    processes[index].send_signal(how)
    start_s = time.monotonic()
    output, _ = processes[1 - index].communicate(timeout=100)
    assert time.monotonic() - start_s < 60  # 18 s and two looks on idle cores
  finally:
    for process in processes:
      process.kill()
      process.communicate()
  return processes[1 - index].returncode, output


def test_sigkill_of_one_ends_the_other(tiny_run, root, double, tmp_path):
  status, output = lose(tiny_run, root, tmp_path, 1, signal.SIGKILL)
  assert status == STATUS, output
  assert re.search(r'no sign of life for 18 s from process 1 \(last at step \d+ \(', output), output
  assert re.search(r'process 0 of 2 is at step \d+ \(', output), output
  # The same command goes on, bit for bit as if nothing had been.
  last = max(NUM_STEPS, restore_params(tmp_path, step='latest').step + 1)
  statuses, outputs = finish(start_two(training(tiny_run, tmp_path, last), root))
  assert statuses == [0, 0], outputs
  have, want = outcome(tmp_path, 2), outcome(double, 2)
  assert [record['step'] for record in have[1]] == list(range(1, last + 1))
  assert have[1][:NUM_STEPS] == want[1]
  for mine, theirs in zip(have[2], want[2], strict=True):
    assert [record for record in mine if record['step'] <= NUM_STEPS] == theirs


@pytest.mark.slow
def test_a_stopped_process_is_reported(tiny_run, root, tmp_path):
  status, output = lose(tiny_run, root, tmp_path, 1, signal.SIGSTOP)
  assert status == STATUS, output
  assert re.search(r'no sign of life for 18 s from process 1 \(last at step \d+ \(', output), output
  assert 'in train' in output  # where each thread is


if __name__ == '__main__':
  import score_jax.runs.watchdog

  score_jax.runs.watchdog.BEAT_S = 3.0
  runpy.run_module('score_jax.main', run_name='__main__')
