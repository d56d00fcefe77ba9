"""Training compiles in its first steps and never again; episodes stay on the device."""

import runpy

import jax
import pytest
from etils import epath

from score_jax.rollout.layout import length_step
from score_jax.setup import run as setup_run
from score_jax.training import train
from score_jax.training.loop import run_until_stopped

NUM_STEPS, WARM = 7, 3  # the first checkpoint, which compiles too, is that of step 2


class Watched(train.Trainer):
  """Tells before which steps programs were compiled."""

  def __init__(self, *args):
    super().__init__(*args)
    self.step, self.compiled, self.lengths = 0, [], []

  def collect(self, state, step):
    self.step = step
    return super().collect(state, step)

  def agree(self, experience):
    length, is_stopping = super().agree(experience)
    self.lengths.append(length)
    return length, is_stopping


@pytest.fixture
def trainer(tiny_run, tmp_path):
  config = runpy.run_path(str(tiny_run))['get_config']()
  config.train.num_steps = NUM_STEPS
  config.train.length_bucket = 64  # longer than an episode: one shape
  setup = setup_run.prepare(config)
  yield Watched(setup, epath.Path(tmp_path))
  setup.task.close()


def test_nothing_is_compiled_after_warm_up(trainer):
  def listen(event, seconds, **_):
    if event == '/jax/core/compile/backend_compile_duration':
      trainer.compiled.append(trainer.step)

  jax.clear_caches()  # another test of this process may have compiled the same programs
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    run_until_stopped(trainer, trainer.setup.mesh)
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  assert len(set(trainer.lengths)) == 1
  assert 1 in trainer.compiled, 'nothing was seen: the listener is deaf'
  assert max(trainer.compiled) <= WARM, trainer.compiled


@pytest.mark.parametrize(('bucket', 'slots'), [(64, 2625), (64, 200), (16, 45), (30, 47), (1, 3)])
def test_an_update_is_compiled_for_four_lengths_at_most(bucket, slots):
  step = length_step(bucket, slots)
  lengths = {min(-(-longest // step) * step, slots) for longest in range(1, slots + 1)}
  assert len(lengths) <= 4 and max(lengths) == slots and step % bucket == 0
  # No longer than it must be: a quarter and a bucket are lost at most.
  assert step < slots / 4 + bucket


def test_rows_are_rounded_up_to_few_lengths(trainer):
  trainer.setup.config.train.length_bucket = 1
  run_until_stopped(trainer, trainer.setup.mesh)
  slots = trainer.setup.spec.first_slot(trainer.setup.spec.num_turns)
  step = length_step(1, slots)
  assert step > 1 and all(n % step == 0 or n == slots for n in trainer.lengths), trainer.lengths


def test_episodes_stay_on_the_device(trainer):
  """An update is given the sampler's own arrays, not copies that went through the host."""
  given = []
  step = trainer.train_step

  def watched(state, frozen, batch, *more):
    given.append(batch.episode.tokens)
    return step(state, frozen, batch, *more)

  trainer.train_step = watched
  seen = []
  collect = trainer.collect

  def keep(state, number):
    experience = collect(state, number)
    seen.append(experience.device_episode.tokens)
    return experience

  trainer.collect = keep
  run_until_stopped(trainer, trainer.setup.mesh)
  assert len(given) == NUM_STEPS and all(a is b for a, b in zip(given, seen, strict=True))
