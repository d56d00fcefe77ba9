"""The training loop: experience, verdicts, update, and now and then a checkpoint.

One step, told in order:

1. The step's problems are a function of (seed, step); so are its random keys.
2. The policy samples G episodes of K turns for each problem; a turn is graded on the host while
   the device samples the next one.
3. The verdicts are written down before they are used, so that a step that is done again after a
   kill gets the same ones even where a checker ran into its time limit.
4. One update. Its metrics are fetched, checked and written down after the next update has been
   handed to the device.

A run can be killed at any moment and goes on from its last checkpoint to the same parameters,
rollouts and metrics, bit for bit.
"""

import hashlib
import logging
import math
import time

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import FrozenConfigDict
from tqdm import tqdm

from score_jax.core import sharding
from score_jax.core.types import Batch, TrainState
from score_jax.objective.stages import StageArrays
from score_jax.rollout.layout import length_step
from score_jax.rollout.order import problem_indices
from score_jax.rollout.text import longest_row
from score_jax.runs.checkpoints import Checkpoints
from score_jax.runs.verdicts import VerdictStore
from score_jax.runs.watchdog import Watchdog
from score_jax.setup.run import Setup
from score_jax.tasks.base import Verdict
from score_jax.training import profiling
from score_jax.training.experience import Collector, Experience, training_sampler
from score_jax.training.journal import Journal
from score_jax.training.loop import (
  Preempted,
  TrainingStopped,
  claim,
  fresh_state,
  run_until_stopped,
)
from score_jax.training.update import compiled_step, make_step_options


def train(setup: Setup, workdir: epath.PathLike) -> TrainState:
  """Trains one stage until `config.train.num_steps` updates are done, or goes on with a run.

  Args:
    setup: from `score_jax.setup.run.prepare`.
    workdir: the run directory, new or of the same run.

  Returns:
    The last state.

  Raises:
    ValueError: if the directory belongs to another run, showing what differs.
    Preempted: after SIGTERM, once the state is saved.
    TrainingStopped: on a loss or gradient that is not finite, or a sampler that disagrees with
      the scorer.
  """
  return run_until_stopped(Trainer(setup, epath.Path(workdir)), setup.mesh)


class Trainer:
  """One run of one stage, and what it keeps on disk."""

  def __init__(self, setup: Setup, workdir: epath.Path):
    """Opens the run directory. Arguments and errors as for `train`."""
    self.setup, self.workdir = setup, workdir
    config = setup.config
    decoder = setup.base.decoder
    self.optimizer, self.train_step = compiled_step(
      decoder, setup.trainable.lora, make_step_options(config), FrozenConfigDict(config.optimizer)
    )
    # What the first state is made of; let go then, unless it is the reference.
    self.start = setup.read_start()
    claim(workdir, setup, self.start)
    self.frozen = setup.frozen(setup.trainable.policy_params(self.start))
    self.stage_arrays = StageArrays.of(setup.stage)
    self.collector = Collector(
      sampler=training_sampler(setup, setup.base.params),
      prompts=setup.prompts,
      task=setup.task,
      base_turn1_share=config.rollout.base_turn1_share,
      random_reward=config.train.random_reward,
    )
    self.journal = Journal(workdir, config, decoder.config)
    self.trace = profiling.StepTrace(config.profile, workdir, config.train.num_steps)
    self.verdicts = VerdictStore(workdir, jax.process_index())
    self.checkpoints = Checkpoints(workdir / 'checkpoints', config.train.keep_last)
    self.watchdog = Watchdog(workdir, config.train.hang_s)
    self.is_stopping = False
    # Training reward of each step since the last checkpoint on schedule.
    self.rewards: list[float] = []

  def stop(self, *_) -> None:
    """Asks the loop to save and end after the step it is at; a signal handler."""
    self.is_stopping = True

  def close(self) -> None:
    """Brings the logs up to date and waits for the last checkpoint."""
    self.journal.close()
    self.checkpoints.close()
    self.trace.close()

  def first_state(self) -> TrainState:
    """Returns the newest good checkpoint's state, or the start; rewinds the logs to it."""
    start, self.start = sharding.on_devices(self.start), None
    restored = self.checkpoints.restore(self.setup.abstract_state(self.optimizer))
    if restored is None:
      self.journal.rewind(0)
      return fresh_state(self.setup, self.optimizer, start)
    logging.info('%s: going on after step %d', self.workdir, restored.step)
    self.journal.rewind(restored.step)
    self.rewards = list(restored.metadata['rewards'])
    return restored.state

  def run(self) -> TrainState:
    """The loop; see `train`."""
    config = self.setup.config
    state = self.first_state()
    first, last = int(state.step), config.train.num_steps
    is_shown = config.train.progress and jax.process_index() == 0
    pending = None
    with tqdm(total=last, initial=first, desc=self.setup.stage.name, disable=not is_shown) as bar:
      for step in range(first + 1, last + 1):
        self.trace.begin(step, state)
        self.watchdog.at(step, 'rollout')
        experience = self.collect(state, step)
        self.watchdog.at(step, 'meeting the others')
        length, is_stopping = self.agree(experience)
        self.watchdog.at(step, 'update')
        reward = sharding.put_batch(self.setup.mesh, experience.reward_BK)
        batch = Batch(episode=experience.device_episode, reward=reward)
        with jax.profiler.TraceAnnotation('update'):
          state, metrics = self.train_step(state, self.frozen, batch, self.stage_arrays, length)
        if pending is not None:
          # Its update was done when this step's sampling began.
          self.finish(*pending, bar, experience.start_s)
        pending = (step, metrics, experience)
        is_scheduled = step % config.train.checkpoint_every_steps == 0
        if is_scheduled or step == last or is_stopping:
          self.watchdog.at(step, 'checkpoint')
          self.finish(*pending, bar)
          pending = None
          self.save(state, step, is_scheduled or step == last)
        if is_stopping:
          self.checkpoints.wait()
          raise Preempted(f'stopped by SIGTERM; step {step} of {last} is saved in {self.workdir}')
    self.checkpoints.wait()
    return state

  def collect(self, state: TrainState, step: int) -> Experience:
    """Samples and grades a step's problems; verdicts of an earlier try on the same answers stay."""
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
    experience = self.collector.collect(params, step, indices_P)
    # Another mesh may round differently and so sample other answers: those are graded anew.
    answers = hashlib.blake2s(repr(experience.texts).encode()).hexdigest()
    earlier = self.verdicts.get(step)
    if earlier is not None and earlier['answers'] == answers:
      experience.verdicts[:] = [[Verdict(*v) for v in turn] for turn in earlier['verdicts']]
    else:
      verdicts = [[(v.reward, v.reason) for v in turn] for turn in experience.verdicts]
      self.verdicts.put(step, {'answers': answers, 'verdicts': verdicts})
    return experience

  def agree(self, experience: Experience) -> tuple[int, bool]:
    """What all processes must do alike in this step, though each knows only its own part of it.

    Returns:
      Slots for the compacted rows (the longest row of all, rounded up so that few shapes occur);
      and whether SIGTERM has come to any of them.
    """
    mine = np.asarray([longest_row(experience.episode), self.is_stopping], np.int32)
    if jax.process_count() > 1:
      mine = np.max(multihost_utils.process_allgather(mine), axis=0)
    longest, is_stopping = mine.tolist()
    slots = self.setup.spec.first_slot(self.setup.spec.num_turns)
    bucket = length_step(self.setup.config.train.length_bucket, slots)
    return min(-(-longest // bucket) * bucket, slots), bool(is_stopping)

  def finish(
    self, step: int, metrics: dict, experience: Experience, bar, done_s: float | None = None
  ) -> None:
    """Fetches a step's metrics, checks them and writes them down; `done_s`: None is now."""
    values = {key: float(x) for key, x in jax.device_get(metrics).items()}
    done_s = time.monotonic() if done_s is None else done_s
    self.check(step, values, experience)
    written = self.journal.write(step, values, experience, done_s)
    weights = self.setup.stage.reward_weight
    rewards = [values[f'train/reward_t{k + 1}'] for k in range(len(weights))]
    self.rewards.append(sum(w * r for w, r in zip(weights, rewards, strict=True)))
    shown = [f'r{k + 1}={r:.3f}' for k, r in enumerate(rewards)] + [profiling.postfix(written)]
    bar.set_postfix_str(' '.join(shown), refresh=False)
    bar.update()

  def check(self, step: int, values: dict[str, float], experience: Experience) -> None:
    """Stops the run where its numbers cannot be trusted; the batch is saved to be looked at."""
    limit = self.setup.config.train.max_logp_gap_nats
    gap = values['train/logp_gap_mean_nats']
    if values['train/is_finite'] and gap <= limit:
      return
    path = self.journal.keep_batch(step, experience)
    if not values['train/is_finite']:
      raise TrainingStopped(
        f'step {step}: loss {values["train/loss"]} or gradient norm {values["train/grad_norm"]} is '
        f'not finite. The update was not applied; the batch is in {path}'
      )
    raise TrainingStopped(
      f'step {step}: the log-probabilities of sampler and scorer differ by {gap:.4f} nats on '
      f'average, more than config.train.max_logp_gap_nats={limit}. The batch is in {path}'
    )

  def save(self, state: TrainState, step: int, is_scheduled: bool) -> None:
    """Saves a checkpoint in the background.

    The best is the one with the highest mean reward since the one before. A checkpoint off the
    schedule, saved because the run must end, is never the best and carries the rewards on: so a
    run that was stopped keeps the same best as one that was not.
    """
    self.journal.cut(step)
    reward = float(np.mean(self.rewards)) if is_scheduled else math.nan
    if is_scheduled:
      self.rewards.clear()
    self.checkpoints.save(step, state, metadata={'rewards': list(self.rewards)}, reward=reward)
    oldest = self.checkpoints.oldest_resumable_step()
    if oldest is not None:
      self.verdicts.drop_through(oldest)
