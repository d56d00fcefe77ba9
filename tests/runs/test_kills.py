"""A run that is killed, between saves and while it saves, ends as an uninterrupted one does."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import jax
import numpy as np
import pytest
from makers import ROOT

from score_jax.runs import metrics, restoring, stored

# A run as the train loop does it. The grader answers otherwise the second time it is asked about
# a step, as one with a time limit may: only kept verdicts make the resumed run the same. The
# process that reads commands imports everything once and forks, so that a start costs little.
KILLED_RUN = """
    import os, pathlib, sys, time
    import jax, jax.numpy as jnp
    from score_jax.runs.checkpoints import Checkpoints
    from score_jax.runs.metrics import MetricsLog
    from score_jax.runs.verdicts import VerdictStore

    NUM_STEPS = int(sys.argv[1])

    @jax.jit
    def update(state, verdict):
      w = jnp.tanh(state['w'] @ state['w'].T / 200 + verdict)
      # The history's every bit: a step that once went otherwise is never forgotten.
      history = 31 * state['history'] + jax.lax.bitcast_convert_type(w[0, 0], jnp.int32)
      return {'w': w, 'mu': 0.9 * state['mu'] + w, 'history': history}

    def grade(step, store, markers):
      verdict = store.get(step)
      if verdict is None:
        verdict = step % 7 + 100 * (markers / str(step)).exists()
        store.put(step, verdict)
        (markers / str(step)).touch()
      return verdict

    def train(workdir):
      workdir = pathlib.Path(workdir)
      markers = workdir.with_suffix('.graded')
      markers.mkdir(exist_ok=True)
      w = jnp.cos(jnp.arange(120 * 120.0)).reshape(120, 120)
      state = {'w': w, 'mu': w, 'history': jnp.int32(0)}
      store, log = VerdictStore(workdir), MetricsLog(workdir, flush_every_s=0.02)
      with Checkpoints(workdir / 'checkpoints', keep_last=2) as ckpts:
        restored = ckpts.restore(state)
        start = 0
        if restored is not None:
          state, start = restored.state, restored.step + 1
          assert restored.metadata == {'position': 3 * restored.step}
        log.rewind(start - 1)
        for step in range(start, NUM_STEPS):
          state = update(state, grade(step, store, markers) / 7)
          score = state['w'].mean()
          log.write(step, {'train/score': score, 'time/pid': os.getpid()})
          if step % 5 == 4 or step == NUM_STEPS - 1:
            log.cut(step)
            ckpts.save(step, state, {'position': 3 * step}, reward=float(score))
            if ckpts.oldest_resumable_step() is not None:
              store.drop_through(ckpts.oldest_resumable_step())
          time.sleep(0.004)
        log.close()

    for line in sys.stdin:
      pid = os.fork()
      if pid == 0:
        train(line.strip())
        os._exit(0)
      print(pid, flush=True)
      print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@contextlib.contextmanager
def process_that_forks(num_steps, stderr):
  """The process that reads commands; what it and its children complain of goes to a file."""
  with (
    open(stderr, 'w') as errors,
    subprocess.Popen(
      [sys.executable, '-c', textwrap.dedent(KILLED_RUN), str(num_steps)],
      cwd=ROOT,
      text=True,
      bufsize=1,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=errors,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    ) as server,
  ):
    yield server
    server.stdin.close()


def run_until(server, workdir, is_time_to_kill):
  """Starts the run, kills it when it is time; returns its exit code."""
  print(workdir, file=server.stdin, flush=True)
  pid = int(server.stdout.readline())
  os.set_blocking(server.stdout.fileno(), False)
  try:
    while not (code := server.stdout.readline()) and not is_time_to_kill():
      time.sleep(0.001)
    if not code:
      os.kill(pid, signal.SIGKILL)
  finally:
    os.set_blocking(server.stdout.fileno(), True)
  return int(code or server.stdout.readline())


def unfinished_saves(workdir):
  return set((workdir / 'checkpoints').glob('*orbax-checkpoint-tmp'))


def save_begins(workdir):
  """Returns a function that tells whether there is a save that was not there at first."""
  old = unfinished_saves(workdir)  # what an earlier kill left, and the next start removes

  def begun():
    now = unfinished_saves(workdir)
    old.intersection_update(now)
    return bool(now - old)

  return begun


def time_passes(workdir, seconds, last_step):
  """Returns a function that tells whether so long has passed, or a later step was saved."""
  end_s = time.monotonic() + seconds

  def passed():
    newest = max(stored.committed_steps(workdir / 'checkpoints'), default=-1)
    return time.monotonic() > end_s or newest > last_step

  return passed


def kill_often(server, workdir, num_kills, stderr):
  """Starts and kills the run so many times; returns how many kills fell into a save."""
  rng = random.Random(0)
  num_during_save = 0
  for number in range(num_kills):
    is_saving = save_begins(workdir)
    # Every other kill comes as soon as a save is under way; the rest leave work for later ones.
    past = time_passes(workdir, rng.uniform(0.2, 1.0), last_step=(number + 1) * 9)
    code = run_until(server, workdir, is_saving if number % 2 else past)
    assert code == -signal.SIGKILL, (code, stderr.read_text()[-3000:])
    num_during_save += is_saving()
  return num_during_save


def kept(workdir):
  """What a run leaves: its last and best state, its records, names of files, bodies of saves."""
  state = restoring.restore_subtree(workdir, step='latest')
  best = restoring.restore_subtree(workdir, step='best')
  records = [
    {k: v for k, v in record.items() if not k.startswith('time/')}
    for record in metrics.read_metrics(workdir)
  ]
  folders = ('metrics', 'tensorboard', 'verdicts')
  names = sorted(path.name for folder in folders for path in (workdir / folder).iterdir())
  bodies = {
    step: stored.read_body(workdir / 'checkpoints' / str(step))
    for step in stored.committed_steps(workdir / 'checkpoints')
  }
  return state, best, records, names, bodies


def assert_same(got, want):
  assert jax.tree.structure(got) == jax.tree.structure(want)
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    assert isinstance(x, np.ndarray) == isinstance(y, np.ndarray) and x.dtype == y.dtype
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.parametrize(
  'num_kills, num_steps', [(4, 80), pytest.param(20, 200, marks=pytest.mark.slow)]
)
def test_a_killed_run_equals_an_uninterrupted_one(tmp_path, num_kills, num_steps):
  killed, whole, stderr = tmp_path / 'killed', tmp_path / 'whole', tmp_path / 'stderr'
  with process_that_forks(num_steps, stderr) as server:
    num_during_save = kill_often(server, killed, num_kills, stderr)
    assert run_until(server, killed, lambda: False) == 0
    assert run_until(server, whole, lambda: False) == 0
  assert num_during_save >= num_kills // 4 and 'damaged' not in stderr.read_text()
  assert not unfinished_saves(killed)

  state, best, records, names, bodies = kept(whole)
  assert state.step == num_steps - 1
  assert [r['step'] for r in records] == list(range(num_steps))
  got_state, got_best, got_records, got_names, got_bodies = kept(killed)
  for got, want in zip(got_records, records, strict=True):  # one by one: a short message
    assert got == want
  assert got_names == names and got_bodies.keys() == bodies.keys()
  for step, body in bodies.items():
    assert got_bodies[step] == body
  assert_same(got_state.state, state.state)
  assert_same(got_best.state, best.state)
