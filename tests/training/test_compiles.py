"""Training compiles in its first steps and never again; episodes stay on the device."""

import runpy

import jax
import pytest
from etils import epath

from score_jax.rollout.layout import length_step
from score_jax.setup import run as setup_run
from score_jax.training import train

NUM_STEPS, WARM = 7, 3  # the first checkpoint, which compiles too, is that of step 2


class Watched(train.Trainer):
  """Keeps before which steps programs were compiled, what was sampled and what was learnt from."""

  def __init__(self, *args):
    super().__init__(*args)
    self.number, self.compiled, self.lengths, self.sampled, self.taken = 0, [], [], [], []
    train_step = self.train_step

    def watched(state, frozen, batch, *more):
      self.taken.append(batch.episode.tokens)
      return train_step(state, frozen, batch, *more)

    self.train_step = watched

  def collect(self, state, step):
    self.number = step
    experience = super().collect(state, step)
    self.sampled.append(experience.device_episode.tokens)
    return experience

  def row_slots(self, longest):
    self.lengths.append(super().row_slots(longest))
    return self.lengths[-1]

  def listen(self, event, seconds, **_):
    if event == '/jax/core/compile/backend_compile_duration':
      self.compiled.append(self.number)


def watched_run(tiny_run, workdir, length_bucket):
  """A finished run of NUM_STEPS."""
  config = runpy.run_path(str(tiny_run))['get_config']()
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


def test_episodes_stay_on_the_device(trainer):
  """An update gets the sampler's own arrays, not copies that went through the host."""
  assert len(trainer.taken) == NUM_STEPS
  assert all(a is b for a, b in zip(trainer.taken, trainer.sampled, strict=True))


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
