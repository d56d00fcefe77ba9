"""What a resume must bring back, a check that notices each thing it could forget, and SIGTERM.

A run is stopped by an error at the start of step 6 and goes on in a new Trainer from step 4, its
last checkpoint, so that step 5 is done twice. Its checker is moody: asked again about the same
answers, it says the opposite, as one that ran into its time limit might.
"""

import collections
import dataclasses
import re
import signal

import jax
import numpy as np
import pytest
from etils import epath
from jax.experimental import multihost_utils

from score_jax.core.config import read_config
from score_jax.rollout import keys, order, sampler
from score_jax.runs.metrics import read_metrics
from score_jax.runs.stored import read_rewards
from score_jax.runs.verdicts import VerdictStore
from score_jax.setup import run as setup_run
from score_jax.tasks.base import Verdict
from score_jax.training import loop, train
from score_jax.training.loop import Preempted

NUM_STEPS, RESTORED = 6, 4


class Killed(Exception):
  """Stands for SIGKILL: the step before it leaves nothing behind but its verdicts."""


class MoodyChecker:
  """Grades by a rule of its own the first time, and the other way round from then on."""

  def __init__(self):
    self.times_asked = collections.Counter()

  def __call__(self, problems, texts):
    asked = (tuple(problem.id for problem in problems), tuple(texts))
    self.times_asked[asked] += 1
    is_again = self.times_asked[asked] > 1
    return [Verdict(float((i % 3 == 0) != is_again), 'moody') for i in range(len(texts))]


@pytest.fixture(scope='module')
def prepared(tiny_run):
  config = read_config(str(tiny_run))
  config.train.num_steps, config.train.length_bucket = NUM_STEPS, 64
  setup = setup_run.prepare(config)
  yield setup
  setup.task.close()


def with_moods(setup):
  return dataclasses.replace(setup, task=dataclasses.replace(setup.task, grade=MoodyChecker()))


def like(state, values):
  """Values where those of a state lie, or the update would be compiled anew."""
  return jax.tree.map(lambda x, y: jax.device_put(y, x.sharding), state, values)


def outcome(state, workdir):
  metrics = [
    {k: v for k, v in record.items() if not k.startswith(('time/', 'device/', 'host/'))}
    for record in read_metrics(workdir)
  ]
  return jax.device_get(state), metrics


@pytest.fixture(scope='module')
def uninterrupted(prepared, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('whole')
  return outcome(train.train(with_moods(prepared), workdir), workdir)


def check_resume(prepared, uninterrupted, workdir, fault=None):
  """A run that is stopped and goes on must end as one that was not.

  Args:
    prepared: the run's setup.
    uninterrupted: how it must end.
    workdir: a new folder.
    fault: called with a monkeypatch before the run goes on, to spoil something.
  """
  setup = with_moods(prepared)
  with pytest.MonkeyPatch.context() as patch:
    indices = order.problem_indices

    def killed_in_step_6(seed, step, *rest):
      if step == 5:  # counted from 0; before step 5's metrics are fetched
        raise Killed
      return indices(seed, step, *rest)

    patch.setattr(train, 'problem_indices', killed_in_step_6)
    with pytest.raises(Killed):
      train.train(setup, workdir)
  with pytest.MonkeyPatch.context() as patch:
    if fault is not None:
      fault(patch)
    state, metrics = outcome(train.train(setup, workdir), workdir)
  want_state, want_metrics = uninterrupted
  assert [record['step'] for record in metrics] == list(range(1, NUM_STEPS + 1))
  jax.tree.map(np.testing.assert_array_equal, state, want_state)
  assert metrics == want_metrics


def test_resume_equals_uninterrupted(prepared, uninterrupted, tmp_path):
  assert any(record['train/update_norm'] > 0 for record in uninterrupted[1])
  check_resume(prepared, uninterrupted, tmp_path)


def verdicts_forgotten(patch):
  patch.setattr(VerdictStore, 'get', lambda self, step: None)


def data_order_restarts(patch):
  patch.setattr(
    train,
    'problem_indices',
    lambda seed, step, *rest: order.problem_indices(seed, step - RESTORED, *rest),
  )


def random_keys_restart(patch):
  patch.setattr(
    sampler,
    'episode_keys',
    lambda seed, step, *rest: keys.episode_keys(seed, step - RESTORED, *rest),
  )


def optimizer_forgotten(patch):
  first_state = train.Trainer.first_state

  def forgetful(self, start):
    state = first_state(self, start)
    zeros = jax.tree.map(np.zeros_like, state.opt_state)
    return state.replace(opt_state=like(state.opt_state, zeros))

  patch.setattr(train.Trainer, 'first_state', forgetful)


def parameters_forgotten(patch):
  first_state = train.Trainer.first_state

  def forgetful(self, start):
    state = first_state(self, start)
    return state.replace(trainable=like(state.trainable, jax.tree.map(np.copy, start)))

  patch.setattr(train.Trainer, 'first_state', forgetful)


@pytest.mark.parametrize(
  'fault',
  [
    verdicts_forgotten,
    data_order_restarts,
    random_keys_restart,
    optimizer_forgotten,
    parameters_forgotten,
  ],
)
def test_the_check_can_fail(prepared, uninterrupted, tmp_path, fault):
  with pytest.raises(AssertionError, match='Arrays are not equal'):
    check_resume(prepared, uninterrupted, tmp_path, fault)


@pytest.mark.parametrize(
  ('number', 'name', 'status'), [(signal.SIGTERM, 'SIGTERM', 143), (signal.SIGINT, 'Ctrl-C', 130)]
)
def test_a_signal_saves_the_step_that_it_finds(
  prepared, uninterrupted, tmp_path, monkeypatch, number, name, status
):
  """Off the schedule, so never the best; the handler is the one before when the run is over."""
  setup, before = with_moods(prepared), signal.getsignal(number)
  collect = train.Trainer.collect

  def collect_then_stop(self, state, step):
    if step == 3:
      signal.raise_signal(number)
    return collect(self, state, step)

  monkeypatch.setattr(train.Trainer, 'collect', collect_then_stop)
  message = f'stopped by {name}; step 3 of {NUM_STEPS} is saved in {tmp_path}'
  with pytest.raises(SystemExit, match=str(status)), loop.exit_status():
    with pytest.raises(Preempted, match=re.escape(message)) as found:
      train.train(setup, tmp_path)
    raise found.value
  assert signal.getsignal(number) == before
  assert read_rewards(tmp_path / 'checkpoints').keys() == {2}
  monkeypatch.undo()
  state, metrics = outcome(train.train(setup, tmp_path), tmp_path)
  jax.tree.map(np.testing.assert_array_equal, state, uninterrupted[0])
  assert metrics == uninterrupted[1]


def test_a_signal_after_the_last_step_is_not_forgotten(prepared, tmp_path, monkeypatch):
  """Or a program that goes on with something else would go on."""
  save = train.Trainer.save

  def save_and_stop(self, state, step, is_due):
    save(self, state, step, is_due)
    if step == NUM_STEPS:
      signal.raise_signal(signal.SIGINT)

  monkeypatch.setattr(train.Trainer, 'save', save_and_stop)
  kept = f'stopped by Ctrl-C; step {NUM_STEPS} is kept in {tmp_path}; the same command goes on from'
  with pytest.raises(Preempted, match=re.escape(kept)):
    train.train(with_moods(prepared), tmp_path)


def test_a_directory_of_another_run_is_not_touched(prepared, tmp_path):
  (tmp_path / 'config.json').write_text('{"seed": 7}')
  with pytest.raises(ValueError, match='seed: 7 in the run, 0 now'):
    train.train(prepared, tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['config.json']


def test_processes_agree_on_the_longest_row_and_on_the_end(prepared, tmp_path, monkeypatch):
  """Any process's SIGTERM ends all, in the same step."""
  trainer = train.Trainer(prepared, epath.Path(tmp_path), prepared.read_start())
  assert trainer.agree(5) == (5, False)
  others = np.array([[3, False], [8, True]], np.int32)
  monkeypatch.setattr(jax, 'process_count', lambda: 3)
  monkeypatch.setattr(
    multihost_utils, 'process_allgather', lambda mine: np.concatenate([mine[None], others])
  )
  assert trainer.agree(5) == (8, True)
  monkeypatch.undo()
  trainer.close()
