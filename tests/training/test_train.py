"""The loop of RL: what it compiles, keeps on the device, times and adapts."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from score_jax.core.config import read_config
from score_jax.objective import stages
from score_jax.rollout.layout import length_step
from score_jax.rollout.sampler import Sampler
from score_jax.runs.metrics import read_metrics
from score_jax.runs.restoring import restore_params
from score_jax.runs.stored import committed_steps
from score_jax.setup import run as setup_run
from score_jax.tasks.base import Verdict
from score_jax.training import loop, train
from score_jax.training.loop import TrainingStopped

NUM_STEPS, WARM = 7, 3  # the first checkpoint, which compiles too, is that of step 2


class Watched(train.Trainer):
  """Keeps before which steps programs were compiled, what came last, and how long rows were."""

  def __init__(self, *args):
    super().__init__(*args)
    self.number, self.compiled, self.lengths = 0, [], []

  def collect(self, state, step):
    self.number = step
    self.experience = super().collect(state, step)
    return self.experience

  def row_slots(self, longest):
    self.lengths.append(super().row_slots(longest))
    return self.lengths[-1]

  def listen(self, event, seconds, **_):
    if event == '/jax/core/compile/backend_compile_duration':
      self.compiled.append(self.number)


def watched_run(tiny_run, workdir, length_bucket):
  """A finished run of NUM_STEPS."""
  config = read_config(str(tiny_run))
  config.train.num_steps, config.train.length_bucket = NUM_STEPS, length_bucket
  setup = setup_run.prepare(config)
  start = setup.read_start()
  trainer = Watched(setup, epath.Path(workdir), start)
  jax.monitoring.register_event_duration_secs_listener(trainer.listen)
  try:
    with trainer.running():
      trainer.run(trainer.first_state(start))
  finally:
    jax.monitoring.unregister_event_duration_listener(trainer.listen)
    setup.task.close()
  return trainer


@pytest.fixture(scope='module')
def trainer(tiny_run, tmp_path_factory):
  """A run whose episodes all have one length."""
  jax.clear_caches()  # another test of this process may have compiled the same programs
  return watched_run(tiny_run, tmp_path_factory.mktemp('watched'), 64)  # longer than an episode


def test_nothing_is_compiled_after_warm_up(trainer):
  assert len(set(trainer.lengths)) == 1
  assert 1 in trainer.compiled, 'nothing was seen: the listener is deaf'
  assert max(trainer.compiled) <= WARM, trainer.compiled


@pytest.mark.parametrize(
  ('is_finite', 'gap', 'message'),
  [
    (0.0, 0.0, 'step 3: loss nan or gradient norm 2.0 is not finite. The update was not applied'),
    (1.0, 0.06, 'step 3: the log-probabilities of sampler and scorer differ by 0.0600 nats on'),
  ],
)
def test_numbers_that_cannot_be_trusted_stop_the_run(trainer, is_finite, gap, message):
  values = {'train/is_finite': is_finite, 'train/logp_gap_mean_nats': gap}
  values |= {'train/loss': float('nan'), 'train/grad_norm': 2.0}
  path = trainer.workdir / 'stopped_batch_00000003_process0000.npz'
  with pytest.raises(TrainingStopped) as stopped:
    trainer.check(3, values, trainer.experience)
  assert message in str(stopped.value) and str(path) in str(stopped.value)
  assert path.exists()
  trainer.check(3, values | {'train/is_finite': 1.0, 'train/logp_gap_mean_nats': 0.05}, None)


def test_how_far_sampler_and_scorer_may_differ_and_how_long_to_wait_are_the_configs(
  trainer, monkeypatch, tmp_path
):
  config = trainer.setup.config.copy_and_resolve_references()
  config.train.update(max_logp_gap_nats=0.2, hang_s=77.0)
  setup, seen = dataclasses.replace(trainer.setup, config=config), []
  monkeypatch.setattr(loop, 'Watchdog', lambda workdir, hang_s: seen.append(hang_s))
  other = train.Trainer(setup, epath.Path(tmp_path), setup.read_start())
  other.close()
  assert seen == [77.0]
  values = {'train/is_finite': 1.0, 'train/logp_gap_mean_nats': 0.19}
  other.check(3, values, None)
  with pytest.raises(TrainingStopped, match='max_logp_gap_nats=0.2'):
    other.check(3, values | {'train/logp_gap_mean_nats': 0.21}, trainer.experience)


@pytest.mark.parametrize(('bucket', 'slots'), [(64, 2625), (64, 200), (16, 45), (30, 47), (1, 3)])
def test_an_update_is_compiled_for_four_lengths_at_most(bucket, slots):
  step = length_step(bucket, slots)
  lengths = {min(-(-longest // step) * step, slots) for longest in range(1, slots + 1)}
  assert len(lengths) <= 4 and max(lengths) == slots and step % bucket == 0
  # No longer than it must be: a quarter and a bucket are lost at most.
  assert step < slots / 4 + bucket


def test_rows_are_rounded_up_to_few_lengths(tiny_run, tmp_path):
  trainer = watched_run(tiny_run, tmp_path, 1)
  slots = trainer.setup.spec.first_slot(trainer.setup.spec.num_turns)
  step = length_step(1, slots)
  assert step > 1 and all(n % step == 0 or n == slots for n in trainer.lengths), trainer.lengths


def test_each_step_is_timed_with_its_own_rollout_and_update(tiny_run, tmp_path, monkeypatch):
  """Whether its record is written after the next rollout, or at once for a checkpoint."""
  slow = jax.jit(lambda x: jax.lax.fori_loop(0, 40, lambda _, y: 1e-3 * y @ x, x))
  x, pause_s, sample = jnp.ones((1000, 1000)), 0.3, Sampler.sample_placed
  jax.block_until_ready(slow(x))
  start_s = time.monotonic()
  jax.block_until_ready(slow(x))
  update_s = time.monotonic() - start_s

  def slow_sample(*args):
    time.sleep(pause_s)
    return sample(*args)

  monkeypatch.setattr(Sampler, 'sample_placed', slow_sample)
  config = read_config(str(tiny_run))
  config.train.num_steps, config.train.checkpoint_every_steps = 4, 2
  config.train.length_bucket = 64
  setup = setup_run.prepare(config)
  start = setup.read_start()
  trainer = train.Trainer(setup, epath.Path(tmp_path), start)
  update = trainer.train_step

  def slow_update(*args):
    state, metrics = update(*args)
    nothing = 0.0 * slow(x)[0, 0]
    trainable, metrics = jax.tree.map(lambda y: y + nothing, (state.trainable, metrics))
    return state.replace(trainable=trainable), metrics

  trainer.train_step = slow_update
  start_s = time.monotonic()
  with trainer.running():
    trainer.run(trainer.first_state(start))
  run_s = time.monotonic() - start_s
  setup.task.close()
  records = read_metrics(tmp_path)
  assert len(records) == 4 and sum(r['time/step_s'] for r in records) < run_s + 1
  for r in records[1:]:
    assert pause_s <= r['time/rollout_s'] < pause_s + 0.6 * update_s
    assert r['time/step_s'] > r['time/rollout_s'] + 0.6 * update_s


def test_the_best_checkpoint_has_the_highest_weighted_reward(tiny_run, tmp_path):
  """The mean since the checkpoint before, by hand: other rules would choose another step."""
  # Of the 16 episodes of steps 1 to 7 so many are right at turn 1, and at turn 2.
  right = [(16, 0), (14, 0), (2, 8), (2, 4), (12, 2), (10, 3), (0, 0)]
  config = read_config(str(tiny_run))
  config.stage.update(reward_weight=(1.0, 3.0), bonus=(0.0, 10.0))
  config.train.num_steps, config.train.checkpoint_every_steps = len(right), 2
  config.train.length_bucket, config.train.keep_last = 64, 1
  setup = setup_run.prepare(config)
  setup.task.close()
  states, start = {}, setup.read_start()

  class Kept(train.Trainer):
    def collect(self, state, step):
      verdicts = [[Verdict(float(i < n), 'by decree') for i in range(16)] for n in right[step - 1]]
      return dataclasses.replace(super().collect(state, step), verdicts=verdicts)

    def save(self, state, step, is_due):
      states[step] = jax.device_get(state.trainable)
      super().save(state, step, is_due)

  trainer, found = Kept(setup, epath.Path(tmp_path), start), []
  checkpoints = trainer.checkpoints
  save = checkpoints.save
  checkpoints.save = lambda step, *x, reward, **more: (
    found.append((step, 16 * reward)),
    save(step, *x, reward=reward, **more),
  )
  with trainer.running():
    trainer.run(trainer.first_state(start))
  # (16 + 14) / 2; (2 + 2 + 3 * 12) / 2; (22 + 3 * 5) / 2; the last one, off the rhythm.
  assert found == [(2, 15.0), (4, 20.0), (6, 18.5), (7, 0.0)]
  assert [r['train/reward_t2'] for r in read_metrics(tmp_path)] == [b / 16 for _, b in right]
  assert committed_steps(tmp_path / 'checkpoints') == [4, 7]
  for which, step in (('best', 4), ('latest', 7)):
    jax.tree.map(
      np.testing.assert_array_equal, restore_params(tmp_path, step=which).params, states[step]
    )
  differ = jax.tree.map(lambda x, y: (x != y).any(), states[4], states[7])
  assert any(jax.tree.leaves(differ))


@pytest.mark.filterwarnings('ignore:overflow encountered in cast:RuntimeWarning')
def test_parameters_that_are_not_finite_are_not_saved(tiny_run, tmp_path):
  """Loss and gradient are finite, the step is too long: seen before a checkpoint of it is made."""
  config = read_config(str(tiny_run))
  config.optimizer.learning_rate = 1e39
  config.train.num_steps, config.train.length_bucket = 1, 64
  setup = setup_run.prepare(config)
  message = 'step 1: the parameters are not finite .* not saved; no step is kept in .*; the'
  with pytest.raises(TrainingStopped, match=message):
    train.train(setup, tmp_path)
  setup.task.close()
  assert committed_steps(tmp_path / 'checkpoints') == []


def test_kl_weight_follows_its_target(tiny_run, tmp_path):
  """A weight that follows a target is part of the state: saved, restored, and in the log."""

  def trained(num_steps, folder):
    config = read_config(str(tiny_run))
    config.stage.update(dataclasses.asdict(stages.stage1(0.01, 0.5)))
    config.stage.kl_target_nats = (1e-4, 0.0)
    config.train.num_steps, config.train.checkpoint_every_steps = num_steps, 1
    config.train.length_bucket = 64
    setup = setup_run.prepare(config)
    state = train.train(setup, folder)
    setup.task.close()
    return jax.device_get(state)

  whole = trained(4, tmp_path / 'whole')
  trained(2, tmp_path / 'parts')
  parts = trained(4, tmp_path / 'parts')
  jax.tree.map(np.testing.assert_array_equal, whole, parts)
  log = read_metrics(tmp_path / 'whole')
  scale = np.float32(1.0)
  for record in log:
    np.testing.assert_allclose(record['train/kl_weight_t1'], 0.5 * scale, rtol=1e-6)
    np.testing.assert_allclose(record['train/kl_weight_t2'], 0.01, rtol=1e-6)
    scale *= 1 + np.clip(record['train/kl_t1_nats'] / 1e-4 - 1, -0.2, 0.2)
  np.testing.assert_allclose(whole.kl_scale, [scale, 1.0], rtol=1e-6)
  assert whole.kl_scale[0] != 1.0
