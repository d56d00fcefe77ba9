"""Two processes of four devices are the same run as one process, whatever happens to one of them.

All programs are forks of one process that has imported the package.
"""

import re
import shutil
import signal
import socket
import time

import jax
import numpy as np
import pytest
from forked import Server
from makers import QUICK_TO_COMPILE

from score_jax.runs.metrics import read_metrics
from score_jax.runs.restoring import restore_params
from score_jax.runs.segments import read_segments
from score_jax.runs.stored import committed_steps
from score_jax.runs.watchdog import LOST_BEATS, STATUS

NUM_STEPS = 4
BEAT_S = 1.5
LOST = rf'no sign of life for {LOST_BEATS * BEAT_S:g} s from process 1 \(last at step \d+ \('


@pytest.fixture(scope='module')
def server():
  # Runs are compared with each other, so the compiler need not do its best.
  # Of several processes jax lets the first one write to the cache that all tests share, and finds
  # for none of them what another one wrote: they gain nothing by it.
  alone = {'XLA_FLAGS': QUICK_TO_COMPILE, 'JAX_ENABLE_COMPILATION_CACHE': 'false'}
  server = Server('score_jax.training.train', 'score_jax.evaluation.evaluate', **alone)
  yield server
  server.close()


def free_address():
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    return f'localhost:{probe.getsockname()[1]}'


def start_two(server, one, other=None, devices=4, **kwargs):
  """Starts both processes of a program, with the same command line or each with its own."""
  address = free_address()
  return [
    server.start(
      *arguments,
      '--distributed',
      devices=devices,
      JAX_COORDINATOR_ADDRESS=address,
      JAX_NUM_PROCESSES='2',
      JAX_PROCESS_ID=str(i),
      **kwargs,
    )
    for i, arguments in enumerate((one, other or one))
  ]


def training(config, workdir, mesh=(2, 4, 1), num_steps=NUM_STEPS):
  """The command line of a run, after `python -m`."""
  return [
    'score_jax.main',
    f'--config={config}',
    f'--workdir={workdir}',
    f'--config.mesh={mesh}',
    f'--config.train.num_steps={num_steps}',
    # A policy with mixed rewards, and no steps of Adam's that only rounding gives a direction.
    '--config.model.checkpoint=embedded',
    '--config.optimizer.eps=1e-3',
    # So that episodes share rows.
    '--config.train.micro_batches=2',
  ]


def finish(*programs):
  """Waits for all, which must end well; returns what they printed."""
  outputs = [program.communicate() for program in programs]
  assert [program.returncode for program in programs] == [0] * len(programs), outputs
  return outputs


def outcome(workdir, num_processes=1):
  """Parameters, metrics without clocks, and episodes in the order of the batch."""
  metrics = [
    {
      k: v
      for k, v in record.items()
      if k.split('/')[0] not in ('time', 'device', 'host')
      and not k.startswith(('train/graded', 'train/changed', 'train/slots'))
    }
    for record in read_metrics(workdir)
  ]
  episodes = [read_segments(workdir / 'episodes', f'process{i:04d}') for i in range(num_processes)]
  return restore_params(workdir, step='latest').params, metrics, episodes


def latest_step(workdir):
  return restore_params(workdir, step='latest').step


@pytest.fixture(scope='module')
def single(tiny_run, server, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('single') / 'run'
  finish(server.start(*training(tiny_run, workdir, (1, 1, 1))))
  return outcome(workdir)


@pytest.fixture(scope='module')
def double(tiny_run, server, tmp_path_factory):
  """The work directory of an uninterrupted run of two processes."""
  workdir = tmp_path_factory.mktemp('double') / 'run'
  finish(*start_two(server, training(tiny_run, workdir)))
  return workdir


def assert_same_run(have, want):
  """Equal up to the rounding of sums over devices."""
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4), have[0], want[0])
  assert [record.keys() for record in have[1]] == [record.keys() for record in want[1]]
  for mine, theirs in zip(have[1], want[1], strict=True):
    # How full the slots are depends on how many devices share the rows.
    for key, value in ((k, v) for k, v in theirs.items() if not k.endswith('slots_per_token')):
      np.testing.assert_allclose(mine[key], value, rtol=2e-3, atol=1e-3, err_msg=key)


def test_two_processes(single, double):
  have = outcome(double, 2)
  assert_same_run(have, single)
  assert any(record['train/mixed_t2'] > 0 for record in have[1])
  # The first process saves the problems that a single one saves first.
  first, second = have[2]
  saved = [record for record in single[2][0] if record['step'] == 1]
  mine = [record for record in first if record['step'] == 1]
  assert mine == saved[: len(mine)] and len(mine) > 0
  assert {r['problem'] for r in second if r['step'] == 1}.isdisjoint(r['problem'] for r in mine)


def test_fewer_devices_go_on(tiny_run, server, single, double, tmp_path):
  """A run of two processes goes on as one process of 4 devices, then of 1, and is the run of 1."""
  shutil.copytree(double, tmp_path, dirs_exist_ok=True)
  shutil.rmtree(tmp_path / 'checkpoints' / str(NUM_STEPS))  # as if it had been killed before
  for num_steps, devices in [(3, 4), (NUM_STEPS, 1)]:
    command = training(tiny_run, tmp_path, (1, devices, 1), num_steps)
    finish(server.start(*command, devices=devices))
    assert latest_step(tmp_path) == num_steps
  have = outcome(tmp_path)
  assert_same_run(have, single)
  assert [record['step'] for record in read_metrics(tmp_path)] == list(range(1, NUM_STEPS + 1))
  assert have[2][0][0] == single[2][0][0]


def test_evaluation_by_two_processes(tiny_run, server, tmp_path):
  """10 problems, of which 8 may go at once: two parts of 5, where one process repeats a row."""
  arguments = ['score_jax.evaluate', f'--config={tiny_run}', '--config.model.checkpoint=embedded']
  arguments += ['--config.eval.batch=2', '--temperature=1']
  finish(server.start(*arguments, f'--workdir={tmp_path / "one"}'))
  outputs = finish(*start_two(server, [*arguments, f'--workdir={tmp_path / "two"}']))
  assert ['10 problems' in output for output in outputs] == [True, False], outputs
  for name in ('metrics.json', 'records.jsonl'):
    assert (tmp_path / 'two' / name).read_text() == (tmp_path / 'one' / name).read_text()


@pytest.mark.parametrize('first', ['0', 'file/0'], ids=['elsewhere', 'impossible'])
def test_processes_that_share_no_directory_are_refused(tiny_run, server, tmp_path, first):
  (tmp_path / 'file').touch()
  workdirs = [tmp_path / first, tmp_path / '1']
  commands = [training(tiny_run, workdir, (2, 1, 1)) for workdir in workdirs]
  for workdir, program in zip(workdirs, start_two(server, *commands, devices=1), strict=True):
    output = program.communicate()
    assert program.returncode == 2, output
    assert f'{workdir} is not one directory for all processes' in output
    assert f'processes {"[1]" if first == "0" else "[0, 1]"} do not see' in output
  assert not list(tmp_path.glob('*/*'))


def test_an_evaluation_that_hangs_ends(tiny_run, server, tmp_path):
  """It would have to compile faster than 0.1 s."""
  arguments = ['score_jax.evaluate', f'--config={tiny_run}', '--config.model.checkpoint=embedded']
  program = server.start(*arguments, '--config.train.hang_s=0.1', f'--workdir={tmp_path}')
  output = program.communicate()
  assert program.returncode == STATUS, output
  assert 'no progress for 0.1 s: process 0 is at step 0 (start)' in output
  assert not (tmp_path / 'metrics.json').exists()


def test_sigterm_ends_what_has_no_handler(server):
  """A run that is loading, an evaluation: jax would take the signal for its own."""
  loading = (
    'import os, signal, time; from absl import flags; from score_jax.cli import distributed\n'
    'flags.FLAGS(["", "--distributed"])\n'
    'distributed.join()\n'
    'os.kill(os.getpid(), signal.SIGTERM)\n'
    'time.sleep(10)\n'
  )
  numbers = {'JAX_NUM_PROCESSES': '1', 'JAX_PROCESS_ID': '0'}
  address = free_address()
  program = server.start(
    'score_jax.main', prelude=loading, JAX_COORDINATOR_ADDRESS=address, **numbers
  )
  output = program.communicate()
  assert program.returncode == -signal.SIGTERM, output


def wait_for_checkpoint(workdir, step, programs):
  """Waits until a run has saved a step, or a later one."""
  deadline_s = time.monotonic() + 200
  while max(committed_steps(workdir / 'checkpoints'), default=0) < step:
    assert time.monotonic() < deadline_s and all(program.poll() is None for program in programs)
    time.sleep(0.05)


def lose(tiny_run, server, workdir, how):
  """Starts a run, loses the second of its two processes; returns what the first one printed."""
  beat = f'from score_jax.runs import watchdog; watchdog.BEAT_S = {BEAT_S}'
  programs = start_two(server, training(tiny_run, workdir, num_steps=5000), prelude=beat)
  try:
    wait_for_checkpoint(workdir, 2, programs)
    programs[1].send_signal(how)
    start_s = time.monotonic()
    output = programs[0].communicate(timeout_s=100)
    assert time.monotonic() - start_s < 60  # as many beats and two looks on idle cores
  finally:
    for program in programs:
      program.send_signal(signal.SIGKILL)
  assert programs[0].returncode == STATUS, output
  assert re.search(LOST, output), output
  return output


def test_sigkill_of_one_ends_both_and_sigterm_to_one_stops_both(tiny_run, server, double, tmp_path):
  output = lose(tiny_run, server, tmp_path, signal.SIGKILL)
  assert re.search(r'process 0 of 2 is at step \d+ \(', output), output
  # The same command goes on.
  programs = start_two(server, training(tiny_run, tmp_path, num_steps=5000))
  wait_for_checkpoint(tmp_path, max(NUM_STEPS, latest_step(tmp_path) + 1), programs)
  programs[1].send_signal(signal.SIGTERM)
  outputs = [program.communicate() for program in programs]
  assert [program.returncode for program in programs] == [143, 143], outputs
  # However soon a signal was heard, what was done is a run's beginning, bit for bit as if nothing
  # had been.
  have, want = outcome(tmp_path, 2), outcome(double, 2)
  steps = [record['step'] for record in have[1]]
  assert steps == list(range(1, latest_step(tmp_path) + 1)) and steps[-1] >= NUM_STEPS
  assert have[1][:NUM_STEPS] == want[1]
  for mine, theirs in zip(have[2], want[2], strict=True):
    assert [record for record in mine if record['step'] <= NUM_STEPS] == theirs


@pytest.mark.slow
def test_a_stopped_process_is_reported(tiny_run, server, tmp_path):
  output = lose(tiny_run, server, tmp_path, signal.SIGSTOP)
  assert 'in train' in output  # where each thread is
