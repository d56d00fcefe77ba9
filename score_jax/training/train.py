"""The training loop: experience, verdicts, update, and now and then a checkpoint.

One step, told in order:

1. The step's problems are a function of (seed, step); so are its random keys.
2. The policy samples G episodes of K turns for each problem; answers that have ended are graded on
   the host while the device samples the others.
3. The verdicts are written down before they are used, so that a step that is done again after a
   kill gets the same ones even where a checker ran into its time limit.
4. One update. Its metrics are fetched, checked and written down after the next update has been
   handed to the device.

A run can be killed at any moment and goes on from its last checkpoint to the same parameters,
rollouts and metrics, bit for bit.
"""

import dataclasses
import functools
import hashlib
import math
import time

import jax
import numpy as np
from etils import epath
from ml_collections import FrozenConfigDict

from score_jax.core import sharding
from score_jax.core.types import Batch, TrainState
from score_jax.objective.stages import StageArrays
from score_jax.rollout.layout import length_step
from score_jax.rollout.order import problem_indices
from score_jax.rollout.text import longest_row
from score_jax.runs.lock import one_writer
from score_jax.runs.verdicts import VerdictStore
from score_jax.setup.run import Setup
from score_jax.tasks.base import Verdict
from score_jax.training.experience import Collector, Experience, training_sampler
from score_jax.training.journal import Journal
from score_jax.training.loop import Loop, TrainingStopped, fetch, fresh_state, not_finite
from score_jax.training.packing import pack_episodes, rows_at_once
from score_jax.training.profiling import postfix
from score_jax.training.update import compiled_step, make_step_options


def train(setup: Setup, workdir: epath.PathLike) -> TrainState:
  """Trains one stage until `config.train.num_steps` updates are done, or goes on with a run.

  Args:
    setup: from `score_jax.setup.run.prepare`.
    workdir: the run directory, new or of the same run.

  Returns:
    The last state.

  Raises:
    ValueError: if the directory belongs to another run, showing what differs; if another program
      writes to it.
    Preempted: after SIGTERM or Ctrl-C, once the state is saved.
    TrainingStopped: on a loss, a gradient or parameters that are not finite, or a sampler that
      disagrees with the scorer.
  """
  with one_writer(workdir):
    start = setup.read_start()
    trainer = Trainer(setup, epath.Path(workdir), start)
    with trainer.running():
      state = trainer.first_state(start)
      del start  # or its memory would stay taken, where it is not the reference
      return trainer.run(state)


class Trainer(Loop):
  """One run of one stage."""

  def __init__(self, setup: Setup, workdir: epath.Path, start: dict):
    """Opens the run directory. Arguments and errors as for `Loop`."""
    config, decoder = setup.config, setup.base.decoder
    self.train_step = compiled_step(
      decoder, setup.trainable.lora, make_step_options(config), FrozenConfigDict(config.optimizer)
    )
    super().__init__(
      setup, workdir, start, Journal(workdir, config, decoder.config), config.train.num_steps
    )
    self.frozen = setup.frozen(setup.trainable.policy_params(start))
    self.collector = Collector(
      sampler=training_sampler(setup, setup.base.params),
      prompts=setup.prompts,
      task=setup.task,
      samples_per_problem=config.rollout.samples_per_problem,
      base_turn1_share=config.rollout.base_turn1_share,
      random_reward=config.train.random_reward,
    )
    self.verdicts = VerdictStore(workdir, jax.process_index())
    # Training reward of each step since the last checkpoint on schedule.
    self.rewards: list[float] = []

  def first_state(self, start: dict) -> TrainState:
    """Returns the newest good checkpoint's state, or the start; rewinds the logs to it."""
    restored = self.restore()
    if restored is None:
      return fresh_state(self.setup, start)
    self.rewards = list(restored.metadata['rewards'])
    return restored.state

  def run(self, state: TrainState) -> TrainState:
    """The loop; see `train`. `state` is donated."""
    setup, stage_arrays = self.setup, StageArrays.of(self.setup.stage)
    first, last = int(state.step), setup.config.train.num_steps
    pending = None
    with self.progress(setup.stage.name, first, last) as bar:
      for step in range(first + 1, last + 1):
        self.profile.begin(step, state)
        self.watchdog.at(step, 'rollout')
        experience = self.settle(step, self.collect(state, step))
        self.watchdog.at(step, 'meeting the others')
        longest, is_stopping = self.agree(longest_row(experience.episode))
        self.watchdog.at(step, 'update')
        batch = sharding.put_batch(setup.mesh, self.pack(experience, self.row_slots(longest)))
        with jax.profiler.TraceAnnotation('update'):
          state, metrics = self.train_step(state, self.frozen, batch, stage_arrays)
        if pending is not None:
          # Its update was done when this step's sampling began.
          self.finish(*pending, bar, experience.start_s)
        pending = (step, metrics, experience)
        is_due = self.is_due(step, last)
        if is_due or is_stopping:
          self.watchdog.at(step, 'checkpoint')
          self.finish(*pending, bar)
          pending = None
          self.save(state, step, is_due)
        if is_stopping:
          self.end(f'step {step} of {last}')
    self.checkpoints.wait()
    return state

  def collect(self, state: TrainState, step: int) -> Experience:
    """Samples and grades the episodes of a step's problems."""
    config = self.setup.config
    indices_P = problem_indices(
      config.seed,
      step - 1,
      config.rollout.problems_per_step,
      len(self.setup.prompts.problems),
      jax.process_index(),
      jax.process_count(),
    )
    params = self.setup.trainable.policy_params(state.trainable)
    got_on = functools.partial(self.watchdog.at, step, 'rollout')
    sampler = dataclasses.replace(self.collector.sampler, on_round=got_on)
    collector = dataclasses.replace(self.collector, sampler=sampler)
    return collector.collect(params, step, indices_P)

  def settle(self, step: int, experience: Experience) -> Experience:
    """Writes the verdicts down; those of an earlier try on the same answers count instead."""
    # Another mesh may round differently and so sample other answers: those are graded anew.
    answers = hashlib.blake2s(repr(experience.texts).encode()).hexdigest()
    earlier = self.verdicts.get(step)
    if earlier is not None and earlier['answers'] == answers:
      verdicts = [[Verdict(*stored) for stored in turn] for turn in earlier['verdicts']]
      return dataclasses.replace(experience, verdicts=verdicts)
    stored = [[[v.reward, v.reason] for v in turn] for turn in experience.verdicts]
    self.verdicts.put(step, {'answers': answers, 'verdicts': stored})
    return experience

  def pack(self, experience: Experience, slots: int) -> Batch:
    """What the update learns from, in rows of so many slots: the part of this process."""
    setup, processes = self.setup, jax.process_count()
    mine = len(experience.problems)
    rows = rows_at_once(mine * processes, slots, setup.mesh, setup.config.train.micro_batches)
    return pack_episodes(
      experience.episode,
      experience.reward_BK,
      slots,
      rows // processes,
      first=jax.process_index() * mine,
    )

  def row_slots(self, longest: int) -> int:
    """Slots of the packed rows: the longest row of all, rounded up so that few shapes occur."""
    slots = self.setup.spec.first_slot(self.setup.spec.num_turns)
    bucket = length_step(self.setup.config.train.length_bucket, slots)
    return min(-(-longest // bucket) * bucket, slots)

  def finish(
    self, step: int, metrics: dict, experience: Experience, bar, done_s: float | None = None
  ) -> None:
    """Fetches a step's metrics, checks them and writes them down; `done_s`: None is now."""
    values = fetch(metrics)
    done_s = time.monotonic() if done_s is None else done_s
    self.check(step, values, experience)
    written = self.log.write(step, values, experience, done_s)
    weights = self.setup.stage.reward_weight
    rewards = [values[f'train/reward_t{k + 1}'] for k in range(len(weights))]
    self.rewards.append(sum(w * r for w, r in zip(weights, rewards, strict=True)))
    shown = [f'r{k + 1}={r:.3f}' for k, r in enumerate(rewards)] + [postfix(written)]
    bar.set_postfix_str(' '.join(shown), refresh=False)
    bar.update()

  def check(self, step: int, values: dict[str, float], experience: Experience) -> None:
    """Stops the run where its numbers cannot be trusted; the batch is saved to be looked at."""
    limit = self.setup.config.train.max_logp_gap_nats
    gap = values['train/logp_gap_mean_nats']
    if values['train/is_finite'] and gap <= limit:
      return
    path = self.log.keep_batch(step, experience)
    if not values['train/is_finite']:
      complaint = not_finite(values['train/loss'], values)
      raise TrainingStopped(f'step {step}: {complaint}; {self.kept()}; the batch is in {path}')
    raise TrainingStopped(
      f'step {step}: the log-probabilities of sampler and scorer differ by {gap:.4f} nats on '
      f'average, more than config.train.max_logp_gap_nats={limit}. The batch is in {path}'
    )

  def save(self, state: TrainState, step: int, is_due: bool) -> None:
    """Saves a checkpoint in the background.

    The best is the one with the highest mean reward since the one before. A checkpoint off the
    schedule, saved because the run must end, is never the best and carries the rewards on: so a
    run that was stopped keeps the same best as one that was not.
    """
    reward = float(np.mean(self.rewards)) if is_due else math.nan
    if is_due:
      self.rewards.clear()
    self.save_checkpoint(step, state, {'rewards': list(self.rewards)}, reward)
    oldest = self.checkpoints.oldest_resumable_step()
    if oldest is not None:
      self.verdicts.drop_through(oldest)
