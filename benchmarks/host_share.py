"""The share of a training step that the device does not work in.

    python benchmarks/host_share.py --preset qwen2_5_1_5b --dtype bfloat16 --turn_tokens 256

The trainer itself runs on generated sums, with the small policy that ships with the package or with
random weights of a preset's sizes (and the small policy's vocabulary). The time from one step's
beginning to the next is held against that of the same programs on the same arrays, run one after
the other without grading, logs and packing (the sampler's own work on the host is counted with its
programs): share = 1 - programs / step. Checkpoints are left out. The
learning rate is 0, so that what was sampled can be sampled again. Needs all that `pip install .`
installs, unlike the benchmarks of parts.
"""

import dataclasses
import pathlib
import statistics
import tempfile
import time

import jax
from common import make_parser, median_s, print_heading, print_row, random_params
from etils import epath
from ml_collections import ConfigDict

from score_jax.core.config import default_config
from score_jax.core.config_check import check_config
from score_jax.model.decoder import Decoder
from score_jax.model.presets import preset
from score_jax.objective.stages import stage2
from score_jax.rollout.sampler import Sampler
from score_jax.setup import run as setup_run
from score_jax.setup.base_model import param_shardings
from score_jax.training.train import Trainer


class Recorder(Trainer):
  """Trains, keeps when each step began and what its programs were given; saves nothing."""

  def __init__(self, setup: setup_run.Setup, workdir: epath.Path, start: dict):
    super().__init__(setup, workdir, start)
    self.begins, self.sampled, self.updated = [], [], []
    sampled = self.sampled

    class Recording(Sampler):
      def sample_placed(self, placed, *others, **more):
        sampled.append(placed)
        return super().sample_placed(placed, *others, **more)

    self.plain, self.update = self.collector.sampler, self.train_step
    own = {f.name: getattr(self.plain, f.name) for f in dataclasses.fields(Sampler)}
    self.collector = dataclasses.replace(self.collector, sampler=Recording(**own))

    def train_step(state, frozen, batch, stage):
      self.updated.append((batch, stage))
      return self.update(state, frozen, batch, stage)

    self.train_step = train_step

  def collect(self, state, step):
    """Notes the time: collecting is the first thing in a step."""
    self.begins.append(time.perf_counter())
    return super().collect(state, step)

  def save(self, state, step, is_due):
    """Does nothing."""

  def replay(self, state, steps: range):
    """The programs of steps, counted from 0, with nothing between; returns the last state."""
    for step in steps:
      params = self.setup.trainable.policy_params(state.trainable)
      dataclasses.replace(self.plain, params=params).sample_placed(self.sampled[step])
      state, _ = self.update(state, self.frozen, *self.updated[step])
    return state


def make_setup(flags) -> setup_run.Setup:
  """A run of Stage II on generated sums; with --preset, on random weights of that size."""
  c = default_config()
  c.model.checkpoint, c.model.dtype, c.model.remat = 'embedded', flags.dtype, flags.remat
  c.task.level_weights = ConfigDict({'5': 1.0})
  c.task.num_train, c.task.num_test = 1000, 10
  c.stage.update(dataclasses.asdict(stage2(10.0, 0.01)))
  c.rollout.problems_per_step, c.rollout.samples_per_problem = flags.problems, flags.samples
  c.rollout.turn_tokens = (flags.turn_tokens,) * 2
  c.optimizer.learning_rate = 0.0
  c.train.num_steps, c.train.progress = flags.warmup + flags.steps + 1, False
  c.train.checkpoint_every_steps = c.train.num_steps
  c.train.max_logp_gap_nats = 1e9  # random weights in bfloat16 are no model to be careful with
  check_config(c)
  setup = setup_run.prepare(c)
  if not flags.preset:
    return setup
  sizes = dataclasses.replace(
    preset(flags.preset),
    vocab_size=setup.base.decoder.config.vocab_size,
    dtype=flags.dtype,
    param_dtype=flags.dtype,
    remat=flags.remat,
  )
  params = jax.device_put(random_params(sizes), param_shardings(sizes, setup.mesh))
  base = dataclasses.replace(setup.base, decoder=Decoder(sizes), params=params)
  return dataclasses.replace(setup, trainable=dataclasses.replace(setup.trainable, base=base))


def main() -> None:
  """Reads the command line, measures, prints."""
  parser = make_parser(__doc__)
  parser.add_argument('--preset', default='', help='sizes of random weights')
  parser.add_argument('--dtype', default='float32')
  parser.add_argument('--remat', default='none', help="'none', 'dots' or 'block'")
  parser.add_argument('--problems', type=int, default=8)
  parser.add_argument('--samples', type=int, default=8)
  parser.add_argument('--turn_tokens', type=int, default=64)
  parser.add_argument('--steps', type=int, default=10, help='steps that are measured')
  parser.add_argument('--warmup', type=int, default=3, help='steps before, which compile')
  flags = parser.parse_args()
  if flags.tiny:
    flags.problems, flags.samples, flags.turn_tokens = 2, 2, 4
    flags.warmup, flags.steps, flags.repeats = 1, 2, 2
  setup = make_setup(flags)
  with tempfile.TemporaryDirectory() as folder:
    start = setup.read_start()
    trainer = Recorder(setup, epath.Path(pathlib.Path(folder) / 'run'), start)
    with trainer.running():
      state = trainer.run(trainer.first_state(start))
  setup.task.close()
  steps = range(flags.warmup, flags.warmup + flags.steps)
  wall = [trainer.begins[step + 1] - trainer.begins[step] for step in steps]

  def replay():
    nonlocal state
    state = trainer.replay(state, steps)
    return state

  with jax.sharding.set_mesh(setup.mesh):
    device = median_s(replay, flags.repeats) / len(steps)
  rows = f'{flags.problems} problems x {flags.samples} samples, turns of {flags.turn_tokens} tokens'
  name = flags.preset or 'the policy that ships with the package'
  print_heading(f'Share of a step not spent on the device, {name}', flags, f'{rows}, {flags.dtype}')
  header = [
    'steps',
    'ms per step',
    'fastest step, ms',
    'slowest step, ms',
    'its programs alone, ms',
  ]
  print_row([*header, 'share not on the device'], is_header=True)
  mean = statistics.mean(wall)
  times = [1e3 * x for x in (mean, min(wall), max(wall), device)]
  print_row([len(steps), *times, 1 - device / mean])


if __name__ == '__main__':
  main()
