"""What one step learns from: the episodes of its problems, read and graded."""

import concurrent.futures
import dataclasses
import functools
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.core.sharding import local_rows, put_batch
from score_jax.core.types import Episode
from score_jax.rollout.sampler import EpisodeRow, PlacedRows, Sampler
from score_jax.rollout.text import Prompts, turn_texts
from score_jax.setup.run import Setup
from score_jax.tasks.base import Problem, Task, Verdict


@dataclasses.dataclass(frozen=True)
class Experience:
  """B = P * G graded episodes on the host, problem-major: the rows of this process.

  Attributes:
    problems: B problems, each G times.
    episode: the rows, in slots.
    texts: K lists of B answers.
    finals: K lists of B final answers, None where there is none.
    verdicts: K lists of B.
    times: seconds by metric key.
    start_s: when the parameters were there and sampling began, by `time.monotonic`.
  """

  problems: list[Problem]
  episode: Episode
  texts: list[list[str]]
  finals: list[list[str | None]]
  verdicts: list[list[Verdict]]
  times: dict[str, float]
  start_s: float

  @property
  def reward_BK(self) -> np.ndarray:
    """f32[B, K] raw rewards."""
    return np.asarray([[v.reward for v in turn] for turn in self.verdicts], np.float32).T


def training_sampler(setup: Setup, params: dict) -> Sampler:
  """How a run samples in training: its budgets and temperature, no top-k.

  Args:
    setup: of the run.
    params: of the policy.
  """
  config = setup.config
  return Sampler(
    setup.base.decoder,
    setup.spec,
    params,
    setup.base.tokenizer,
    batch=config.eval.batch,
    temperature=config.rollout.temperature,
    seed=config.seed,
    mesh=setup.mesh,
    samples_per_prompt=config.rollout.samples_per_problem,
  )


@dataclasses.dataclass(frozen=True)
class Collector:
  """Samples and grades the episodes of a step.

  Attributes:
    sampler: the base model's; a step puts the policy's parameters in the place of its own.
    prompts: training problems that fit.
    task: the grader.
    base_turn1_share: share of a step's problems whose turn 1 the base model answers.
    random_reward: the control's probability of a reward, whatever was answered; 0 asks the checker.
  """

  sampler: Sampler
  prompts: Prompts
  task: Task
  base_turn1_share: float = 0.0
  random_reward: float = 0.0

  def collect(self, params: dict, step: int, indices_P: Sequence[int]) -> Experience:
    """Samples and grades the answers to one step's problems.

    A turn is graded in another thread while the device samples the next one.

    Args:
      params: the policy's parameters.
      step: names the random keys.
      indices_P: which of the prompts, this process's share.

    Returns:
      The experience.
    """
    G = self.sampler.samples_per_prompt
    both = [(self.prompts.problems[i], self.prompts.ids[i]) for i in indices_P]
    problems = [problem for problem, _ in both for _ in range(G)]
    rows = [EpisodeRow(ids, problem.id, g) for problem, ids in both for g in range(G)]
    placed = self.sampler.place(rows, step)
    # Or the update before, which is still running, would be timed as sampling.
    jax.block_until_ready(params)
    start_s = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
      grading = []

      def after_turn(turn: int, episode: Episode) -> None:
        grading.append(thread.submit(self._grade, problems, episode, turn))

      with jax.profiler.TraceAnnotation('rollout'):
        episode = local_rows(self._sample(params, placed, problems, step, after_turn))
      rollout_s = time.monotonic() - start_s
      texts, finals, verdicts, grade_s = zip(*[f.result() for f in grading], strict=True)
    times = {
      'time/rollout_s': rollout_s,
      'time/grade_s': sum(grade_s),
      'time/grade_not_hidden_s': time.monotonic() - start_s - rollout_s,
    }
    verdicts = self._random_rewards(verdicts, step, rows) if self.random_reward else list(verdicts)
    return Experience(problems, episode, list(texts), list(finals), verdicts, times, start_s)

  @functools.partial(jax.profiler.annotate_function, name='grade')
  def _grade(self, problems: Sequence[Problem], episode: Episode, turn: int):
    """Reads and grades a turn: B texts, final answers and verdicts, and the seconds it took."""
    tokens_BT, turn_BT = local_rows((episode.tokens, episode.turn))
    start_s = time.monotonic()
    texts = turn_texts(tokens_BT, turn_BT, turn, self.sampler.tokenizer)
    verdicts = self.task.grade(problems, texts)
    finals = [self.task.final(text) for text in texts]
    return texts, finals, verdicts, time.monotonic() - start_s

  def is_base_first(self, step: int, problem_ids: Sequence[int]) -> np.ndarray:
    """Which problems' first answers are the base model's; by step and problem alone.

    Args:
      step: names the draw.
      problem_ids: of the problems; one may stand there several times.

    Returns:
      bool, one for each.
    """
    seed = self.sampler.seed
    draws = [np.random.default_rng((seed, step, i)).random() for i in problem_ids]
    return np.asarray(draws) < self.base_turn1_share

  def _sample(
    self, params: dict, placed: PlacedRows, problems: Sequence[Problem], step: int, after_turn
  ) -> Episode:
    """Samples all turns; where the base model answers first, its answer is forced, not sampled."""
    policy, share = dataclasses.replace(self.sampler, params=params), self.base_turn1_share
    if not share:
      return policy.sample_placed(placed, after_turn)
    first = _first_turn(self.sampler, placed)
    if share < 1:
      # Both models answer every problem, with the same random keys: rows stay where they are.
      is_base_B = self.is_base_first(step, [problem.id for problem in problems])
      is_base_B1 = put_batch(self.sampler.mesh, is_base_B[:, None])
      own = _first_turn(policy, placed)
      first = _choose(is_base_B1, first, own)
    spec = policy.spec
    slots = slice(spec.prompt_tokens, spec.first_slot(1))
    forced = {0: (first.tokens[:, slots], first.is_token[:, slots])}
    episode = policy.sample_placed(dataclasses.replace(placed, forced=forced), after_turn)
    if share < 1:
      episode = _mark_sampled(episode, own, is_base_B1, slots.start, slots.stop)
    return episode

  def _random_rewards(
    self, verdicts: Sequence[list[Verdict]], step: int, rows: Sequence[EpisodeRow]
  ) -> list[list[Verdict]]:
    """Replaces rewards by random ones that know nothing of the answers; the reasons stay."""

    def reward(turn: int, row: EpisodeRow) -> float:
      rng = np.random.default_rng((self.sampler.seed, step, row.problem_id, row.sample, turn))
      return float(rng.random() < self.random_reward)

    return [
      [Verdict(reward(turn, row), v.reason) for row, v in zip(rows, of_turn, strict=True)]
      for turn, of_turn in enumerate(verdicts)
    ]


def _first_turn(sampler: Sampler, placed: PlacedRows) -> Episode:
  """Episodes that end after their first turn."""
  return dataclasses.replace(sampler, spec=sampler.spec.first_turns(1)).sample_placed(placed)


@jax.jit
def _choose(is_base_B1, base: Episode, own: Episode) -> Episode:
  return jax.tree.map(lambda x, y: jnp.where(is_base_B1, x, y), base, own)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _mark_sampled(episode: Episode, own: Episode, is_base_B1, start: int, stop: int) -> Episode:
  """Marks the policy's own first answers, which were forced, as its samples."""
  slots = slice(start, stop)
  is_mine = own.is_sampled[:, slots] & ~is_base_B1
  logp = jnp.where(is_mine, own.sampled_logp[:, slots], 0.0)
  return episode.replace(
    is_sampled=episode.is_sampled.at[:, slots].set(is_mine),
    sampled_logp=episode.sampled_logp.at[:, slots].set(logp),
  )
