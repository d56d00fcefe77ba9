"""What one step learns from: the episodes of its problems, read and graded."""

import collections
import concurrent.futures
import dataclasses
import functools
import time
from collections.abc import Sequence

import jax
import numpy as np

from score_jax.core.types import Episode
from score_jax.rollout.sampler import EpisodeRow, PlacedRows, Sampler
from score_jax.rollout.schedule import Answer
from score_jax.rollout.text import Prompts
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
    measured: seconds, and slots per token, by metric key.
    start_s: when the parameters were there and sampling began, by `time.monotonic`.
  """

  problems: list[Problem]
  episode: Episode
  texts: list[list[str]]
  finals: list[list[str | None]]
  verdicts: list[list[Verdict]]
  measured: dict[str, float]
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
    batch=config.rollout.slots,
    temperature=config.rollout.temperature,
    seed=config.seed,
    mesh=setup.mesh,
  )


@dataclasses.dataclass(frozen=True)
class Collector:
  """Samples and grades the episodes of a step.

  Attributes:
    sampler: the base model's; a step puts the policy's parameters in the place of its own.
    prompts: training problems that fit.
    task: the grader.
    samples_per_problem: G.
    base_turn1_share: share of a step's problems whose turn 1 the base model answers.
    random_reward: the control's probability of a reward, whatever was answered; 0 asks the checker.
  """

  sampler: Sampler
  prompts: Prompts
  task: Task
  samples_per_problem: int
  base_turn1_share: float = 0.0
  random_reward: float = 0.0

  def collect(self, params: dict, step: int, indices_P: Sequence[int]) -> Experience:
    """Samples and grades the answers to one step's problems.

    Answers are graded in another thread as they end, while the device samples others.

    Args:
      params: the policy's parameters.
      step: names the random keys.
      indices_P: which of the prompts, this process's share.

    Returns:
      The experience.
    """
    G = self.samples_per_problem
    both = [(self.prompts.problems[i], self.prompts.ids[i]) for i in indices_P]
    problems = [problem for problem, _ in both for _ in range(G)]
    rows = [EpisodeRow(ids, problem.id, g) for problem, ids in both for g in range(G)]
    placed = self.sampler.place(rows, step)
    # Or the update before, which is still running, would be timed as sampling.
    jax.block_until_ready(params)
    start_s = time.monotonic()
    counts = collections.Counter()
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
      grading, waiting = [], collections.deque()

      def grade_waiting() -> tuple[dict, float]:
        # All at once: a call takes as long as its slowest answer, however many workers there are.
        return self._grade(problems, [waiting.popleft() for _ in range(len(waiting))])

      def on_answers(answers: Sequence[Answer]) -> None:
        waiting.extend(answers)
        grading.append(thread.submit(grade_waiting))

      with jax.profiler.TraceAnnotation('rollout'):
        episode = self._sample(params, placed, problems, step, on_answers, counts)
      rollout_s = time.monotonic() - start_s
      graded = [f.result() for f in grading]
    measured = {
      'time/rollout_s': rollout_s,
      'time/grade_s': sum(seconds for _, seconds in graded),
      'time/grade_not_hidden_s': time.monotonic() - start_s - rollout_s,
      'rollout/slots_per_token': counts['decoded'] / max(counts['sampled'], 1),
    }
    found = {place: one for answers, _ in graded for place, one in answers.items()}
    turns = range(self.sampler.spec.num_turns)
    texts, finals, verdicts = (
      [[found[row, turn][i] for row in range(len(rows))] for turn in turns] for i in range(3)
    )
    if self.random_reward:
      verdicts = self._random_rewards(verdicts, step, rows)
    return Experience(problems, episode, texts, finals, verdicts, measured, start_s)

  @functools.partial(jax.profiler.annotate_function, name='grade')
  def _grade(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> tuple[dict, float]:
    """Reads and grades answers: text, final answer and verdict by (row, turn), and the seconds."""
    start_s = time.monotonic()
    texts = [self.sampler.tokenizer.decode(answer.ids) for answer in answers]
    verdicts = self.task.grade([problems[answer.row] for answer in answers], texts)
    found = {
      (answer.row, answer.turn): (text, self.task.final(text), verdict)
      for answer, text, verdict in zip(answers, texts, verdicts, strict=True)
    }
    return found, time.monotonic() - start_s

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
    self, params: dict, placed: PlacedRows, problems: Sequence[Problem], step, on_answers, counts
  ) -> Episode:
    """Samples all turns; where the base model answers first, its answer is forced, not sampled."""
    policy, share = dataclasses.replace(self.sampler, params=params), self.base_turn1_share
    if not share:
      return policy.sample_placed(placed, on_answers, counts)
    first, spec = _first_turn(self.sampler, placed, counts), policy.spec
    slots = slice(spec.prompt_tokens, spec.first_slot(1))
    if share < 1:
      # Both models answer every problem, with the same random keys: rows stay where they are.
      is_base_B1 = self.is_base_first(step, [problem.id for problem in problems])[:, None]
      own = _first_turn(policy, placed, counts)
      first = jax.tree.map(lambda x, y: np.where(is_base_B1, x, y), first, own)
    forced = {0: (first.tokens[:, slots], first.is_token[:, slots])}
    placed = dataclasses.replace(placed, forced=forced)
    episode = policy.sample_placed(placed, on_answers, counts)
    if share < 1:
      # The policy's own first answers, which were forced, are its samples.
      is_mine = own.is_sampled[:, slots] & ~is_base_B1
      episode.is_sampled[:, slots] = is_mine
      episode.sampled_logp[:, slots] = np.where(is_mine, own.sampled_logp[:, slots], 0.0)
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


def _first_turn(sampler: Sampler, placed: PlacedRows, counts: collections.Counter) -> Episode:
  """Episodes that end after their first turn."""
  first = dataclasses.replace(sampler, spec=sampler.spec.first_turns(1))
  return first.sample_placed(placed, counts=counts)
