"""The supervised baselines, STaR and Pair-SFT: sample, keep what worked, imitate it.

One iteration, told in order:

1. The current policy answers the training problems, G times in two turns.
2. What is imitated is selected and written to `traces/iterationNN.jsonl`, to be read.
3. The weights that the run started from, not the current ones, are trained on these traces (as
   ReST-EM does, arXiv:2312.06585), and become the current policy.

`config.supervised` says which method and how often; a run directory is as that of RL, so that
everything that reads one reads this one. It can be killed at any moment and goes on from its last
checkpoint, bit for bit.
"""

import dataclasses
import functools
import json
import logging
import math
import time
from collections.abc import Iterator

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from score_jax.core import sharding
from score_jax.core.types import TrainState
from score_jax.model.lora import policy_params
from score_jax.rollout.layout import length_step
from score_jax.rollout.sampler import EVAL_STEP, EpisodeRow, grade_episode
from score_jax.runs.files import to_json, write_atomic
from score_jax.runs.lock import one_writer
from score_jax.runs.metrics import MetricsLog
from score_jax.setup.optimizer import make_optimizer
from score_jax.setup.run import Setup
from score_jax.training.experience import training_sampler
from score_jax.training.loop import Loop, TrainingStopped, fetch, fresh_state, not_finite
from score_jax.training.packing import pack_traces, rows_at_once
from score_jax.training.supervised import TraceBatch, make_supervised_step
from score_jax.training.traces import (
  METHODS,
  Sample,
  Trace,
  batch_traces,
  build_traces,
  read_samples,
)
from score_jax.training.train_step import forward

# Names the random keys of an iteration's samples, apart from those of training and evaluation.
_FIRST_KEY_STEP = EVAL_STEP - 1000


def imitate(setup: Setup, workdir: epath.PathLike) -> TrainState:
  """Trains a supervised baseline, or goes on with one.

  Args:
    setup: from `score_jax.setup.run.prepare`, with `config.supervised.method` set.
    workdir: the run directory, new or of the same run.

  Returns:
    The last state.

  Raises:
    ValueError: if the directory belongs to another run, or the config does not fit the method; if
      another program writes to it.
    Preempted: after SIGTERM or Ctrl-C, once the state is saved; what was sampled and not imitated
      yet is sampled again.
    TrainingStopped: if no sample is fit to be imitated, or an update is not finite.
  """
  with one_writer(workdir):
    imitation = Imitation(setup, epath.Path(workdir))
    with imitation.running():
      return imitation.run()


class Imitation(Loop):
  """One run of a supervised baseline."""

  def __init__(self, setup: Setup, workdir: epath.Path):
    """Opens the run directory. Arguments and errors as for `imitate`."""
    config = setup.config
    if config.supervised.method not in METHODS:
      raise ValueError(
        f'config.supervised.method={config.supervised.method!r} is none of {METHODS}'
      )
    if setup.spec.num_turns != 2:
      raise ValueError(
        f'config.rollout.turn_tokens={setup.spec.turn_tokens}: traces of config.supervised have '
        f'two turns, not {setup.spec.num_turns}'
      )
    optimizer = make_optimizer(config.optimizer)
    # Each iteration begins with it anew.
    self.start = setup.read_start()
    super().__init__(setup, workdir, self.start, MetricsLog(workdir, jax.process_index()))

    def policy(trainable, frozen, traces):
      params = policy_params(frozen['base'], trainable, setup.trainable.lora)
      return forward(setup.base.decoder, params, traces)

    self.step = make_supervised_step(policy, optimizer, config.train.chunk_tokens)
    self.frozen = {'base': setup.trainable.frozen_base}

  def run(self) -> TrainState:
    """The loop; see `imitate`."""
    o = self.setup.config.supervised
    restored = self.restore()
    state, done = (None, 0) if restored is None else (restored.state, restored.step)
    first = 0
    for iteration in range(1, o.iterations + 1):
      traces = self.traces(iteration, state)
      last = first + o.epochs * -(-len(traces) // o.batch)
      if done <= first:
        state = fresh_state(self.setup, self.start)
        state = state.replace(step=state.step + first)
      if done < last:
        state = self.train_on(traces, state, iteration, max(first, done) - first, first, last)
      first = last
    self.checkpoints.wait()
    return state

  def traces(self, iteration: int, state: TrainState | None) -> list[Trace]:
    """An iteration's traces: those on disk, else made from the current policy's samples."""
    path = self.workdir / 'traces' / f'iteration{iteration:02d}.jsonl'
    is_there = np.asarray(path.exists())
    if jax.process_count() > 1:  # the first process writes: what it sees counts
      is_there = multihost_utils.broadcast_one_to_all(is_there)
    if is_there:
      return [_read_trace(json.loads(line)) for line in path.read_text().splitlines()]
    trainable = self.start if state is None else state.trainable
    start_s = time.monotonic()
    samples = list(self.samples(iteration, self.setup.trainable.policy_params(trainable)))
    config, o = self.setup.config, self.setup.config.supervised
    traces = build_traces(samples, o.method, o.keep_correct, config.seed + iteration)
    right = np.asarray([s.is_right for s in samples])
    found = (
      f'iteration {iteration}: {len(traces)} traces of {len(samples)} episodes, '
      f'{right[:, 0].mean():.1%} right at turn 1 and {right[:, 1].mean():.1%} at turn 2, '
      f'{(~right[:, 0] & right[:, 1]).mean():.1%} wrong and then right, '
      f'in {time.monotonic() - start_s:.0f} s'
    )
    logging.info(found)
    if not traces:
      raise TrainingStopped(
        f'{found}. There is nothing to imitate: sample more '
        f'(config.rollout.samples_per_problem={config.rollout.samples_per_problem}, '
        f'config.supervised.num_problems={o.num_problems}) or keep answers that were right at once '
        '(config.supervised.keep_correct=True)'
      )
    if jax.process_index() == 0:
      decode = self.setup.base.tokenizer.decode
      questions = {p.id: p.question for p in self.setup.prompts.problems}
      lines = [to_json(_write_trace(t, questions, decode)) + '\n' for t in traces]
      write_atomic(path, ''.join(lines))
    return traces

  def samples(self, iteration: int, params: dict) -> Iterator[Sample]:
    """Samples G episodes of each training problem, or of `config.supervised.num_problems`."""
    setup, config = self.setup, self.setup.config
    prompts, G = setup.prompts, config.rollout.samples_per_problem
    chosen = np.arange(len(prompts.problems))
    if count := config.supervised.num_problems:
      chosen = np.random.default_rng((config.seed, iteration)).permutation(chosen)[:count]
    rows = [
      (prompts.problems[i], EpisodeRow(prompts.ids[i], prompts.problems[i].id, g))
      for i in chosen
      for g in range(G)
    ]
    batch = config.rollout.slots or config.eval.batch
    got_on = functools.partial(self.watchdog.at, 0, f'samples of iteration {iteration}')
    sampler = training_sampler(setup, params)
    sampler = dataclasses.replace(sampler, batch=batch, on_round=got_on)
    with self.progress(f'samples {iteration}', 0, len(rows)) as bar:
      for part, episode in sampler.sample([row for _, row in rows], _FIRST_KEY_STEP + iteration):
        self.watchdog.at(part.start, f'samples of iteration {iteration}')
        problems = [problem for problem, _ in rows[part]]
        _, verdicts = grade_episode(episode, problems, setup.task, setup.base.tokenizer)
        reward_BK = np.asarray([[v.reward for v in turn] for turn in verdicts]).T
        yield from read_samples(
          episode, [p.id for p in problems], [row.prompt_ids for _, row in rows[part]], reward_BK
        )
        bar.update(len(problems))
        self.end_if_asked()  # an iteration's samples may take hours

  def train_on(
    self, traces: list[Trace], state: TrainState, iteration: int, done: int, first: int, last: int
  ) -> TrainState:
    """Trains on an iteration's traces.

    Args:
      traces: of the iteration.
      state: before the next update.
      iteration: counted from 1.
      done: updates of the iteration that are done.
      first: updates before the iteration.
      last: updates at its end.

    Returns:
      The state at its end.
    """
    config, setup = self.setup.config, self.setup
    with self.progress(f'{config.stage.name} {iteration}', done, last - first) as bar:
      for step in range(first + done + 1, last + 1):
        self.watchdog.at(step, 'update')
        self.profile.begin(step, state)
        batch = sharding.put_batch(setup.mesh, self.batch(traces, iteration, step - first - 1))
        with jax.profiler.TraceAnnotation('update'):
          state, metrics = self.step(state, self.frozen, batch)
        values = fetch(metrics)
        if not values['train/is_finite']:
          complaint = not_finite(values['train/loss_nats'], values)
          raise TrainingStopped(f'update {step}: {complaint}; {self.kept()}')
        self.log.write(step, values | {'train/iteration': iteration})
        _, is_stopping = self.agree()
        if self.is_due(step, last) or is_stopping:
          # No training reward is measured: the last one counts.
          self.save_checkpoint(step, state, metadata={}, reward=math.nan)
        bar.set_postfix_str(f'loss={values["train/loss_nats"]:.3f}', refresh=False)
        bar.update()
        if is_stopping:
          self.end(f'update {step}')
    # Or the samples of the next iteration would be profiled too.
    self.profile.close()
    return state

  def batch(self, traces: list[Trace], iteration: int, index: int) -> TraceBatch:
    """This process's part of an update: a function of (seed, iteration, update)."""
    config, setup = self.setup.config, self.setup
    size = config.supervised.batch
    per_epoch = -(-len(traces) // size)
    epoch, place = divmod(index, per_epoch)
    order = np.random.default_rng((config.seed, iteration, epoch)).permutation(len(traces))
    # A pair's second answer may be any turn's.
    slots = setup.spec.first_slot(1) + setup.spec.input_slots(1) + max(setup.spec.turn_tokens)
    batch = batch_traces(
      [traces[i] for i in order[place * size : (place + 1) * size]],
      setup.spec.followup_ids[0],
      setup.spec.end_of_turn_ids[0],
      size,
      length_step(config.train.length_bucket, slots),
    )
    share = size // jax.process_count()
    mine = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
    rows = rows_at_once(size, batch.tokens.shape[1], setup.mesh)
    return pack_traces(jax.tree.map(lambda x: x[mine], batch), rows // jax.process_count())


def _write_trace(trace: Trace, questions: dict[int, str], decode) -> dict:
  s = trace.sample
  return {
    'problem': s.problem_id,
    'question': questions[s.problem_id],
    'first': decode(s.answer_ids[0]),
    'second': decode(trace.second_ids),
    'is_right': s.is_right,
    'is_truncated': s.is_truncated,
    'prompt_ids': s.prompt_ids,
    'first_ids': s.answer_ids[0],
    'own_second_ids': s.answer_ids[1],
    'second_ids': trace.second_ids,
  }


def _read_trace(record: dict) -> Trace:
  sample = Sample(
    record['problem'],
    record['prompt_ids'],
    (record['first_ids'], record['own_second_ids']),
    tuple(record['is_truncated']),
    tuple(record['is_right']),
  )
  return Trace(sample, record['second_ids'])
