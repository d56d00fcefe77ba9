"""A run that is killed at any moment ends where an uninterrupted one does, bit for bit."""

import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from makers import ROOT

from score_jax.core.config import read_config
from score_jax.runs.lock import FolderInUseError
from score_jax.runs.metrics import read_metrics
from score_jax.runs.restoring import restore_params
from score_jax.runs.segments import read_segments
from score_jax.setup import run as setup_run
from score_jax.training.train import train

NUM_STEPS = 12


@pytest.fixture(scope='module')
def command(tiny_run):
  """The command line of a tiny run, without its work directory."""
  steps = f'--config.train.num_steps={NUM_STEPS}'
  return [sys.executable, '-m', 'score_jax.main', f'--config={tiny_run}', steps]


def start(command, workdir) -> subprocess.Popen:
  return subprocess.Popen(
    [*command, f'--workdir={workdir}'],
    cwd=ROOT,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(command, workdir) -> str:
  process = start(command, workdir)
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 0, output
  return output


def outcome(workdir):
  """Parameters, metrics without clocks, and episodes of a finished run."""
  params = restore_params(workdir, step='latest')
  assert params.step == NUM_STEPS
  metrics = [
    {k: v for k, v in record.items() if not k.startswith(('time/', 'device/', 'host/'))}
    for record in read_metrics(workdir)
  ]
  return params.params, metrics, read_segments(workdir / 'episodes', 'process0000')


def assert_same(one, other):
  jax.tree.map(np.testing.assert_array_equal, one[0], other[0])
  assert one[1] == other[1]
  assert one[2] == other[2]
  assert [record['step'] for record in one[1]] == list(range(1, NUM_STEPS + 1))


@pytest.fixture(scope='module')
def setup(tiny_run):
  """What the command line prepares, in this process."""
  config = read_config(str(tiny_run))
  config.train.num_steps = NUM_STEPS
  setup = setup_run.prepare(config)
  yield setup
  setup.task.close()


@pytest.fixture(scope='module')
def uninterrupted(setup, tmp_path_factory):
  """The outcome of a run that nobody disturbed."""
  workdir = tmp_path_factory.mktemp('whole')
  train(setup, workdir)
  whole = outcome(workdir)
  assert any(record['train/update_norm'] > 0 for record in whole[1])
  return whole


def test_sigterm_saves_first(command, setup, uninterrupted, tmp_path):
  """Begun by a process, gone on with by another, as one run of this process alone."""
  workdir = tmp_path / 'run'
  process = start(command, workdir)
  deadline = time.monotonic() + 240
  # Step 2's verdicts are there before its update.
  while not any(workdir.glob('verdicts/step00000002-*')) and process.poll() is None:
    assert time.monotonic() < deadline
    time.sleep(0.01)
  with pytest.raises(FolderInUseError, match=f'is being written by process {process.pid} on'):
    train(setup, workdir)
  process.send_signal(signal.SIGTERM)
  output, _ = process.communicate(timeout=120)
  if process.returncode == 0:
    pytest.skip('the run was over before the signal came')
  assert process.returncode == 143, output
  assert 'stopped by SIGTERM' in output
  train(setup, workdir)
  assert_same(uninterrupted, outcome(workdir))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_change_nothing(command, uninterrupted, tmp_path):
  """SIGKILL at random moments, some of them during a save; the run goes on every time."""
  rng = np.random.default_rng(0)
  num_kills, round_ = 0, 0
  during_save = 0
  while num_kills < 20:
    workdir = tmp_path / f'run{round_}'
    round_ += 1
    while num_kills < 20:
      process = start(command, workdir)
      # From the first trace of the run on, so that kills fall into its work, not its imports.
      before = _progress(workdir)
      while _progress(workdir) == before and process.poll() is None:
        time.sleep(0.005)
      if num_kills % 3 == 0:  # wait for a save under way
        while not _is_saving(workdir) and process.poll() is None:
          time.sleep(0.001)
      else:
        time.sleep(rng.uniform(0, 0.6))
      is_saving = _is_saving(workdir)
      process.kill()
      process.communicate(timeout=60)
      if process.returncode == 0:
        break  # it was done before the kill: check it, and start another run
      num_kills += 1
      during_save += is_saving
    finish(command, workdir)
    assert_same(uninterrupted, outcome(workdir))
  assert during_save > 0


def _progress(workdir) -> set[str]:
  """Names of the verdicts and checkpoints that the run has left so far."""
  return {
    str(path) for folder in ('verdicts', 'checkpoints') for path in (workdir / folder).glob('*')
  }


def _is_saving(workdir) -> bool:
  return any('tmp' in path.name for path in (workdir / 'checkpoints').glob('*'))
