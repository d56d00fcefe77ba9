"""What one step learns from: the episodes of its problems, read and graded."""

import concurrent.futures
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.core.sharding import local_rows
from score_jax.core.types import Episode
from score_jax.model.decoder import Decoder
from score_jax.rollout.keys import episode_keys
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.multi_turn import rollout
from score_jax.rollout.text import Prompts, fill_slots, turn_texts
from score_jax.tasks.base import Problem, Task, Verdict
from score_jax.tokenizers.base import Tokenizer


@dataclasses.dataclass(frozen=True)
class Experience:
  """B = P * G graded episodes on the host, problem-major: the rows of this process.

  Attributes:
    problems: B problems, each G times.
    episode: the rows, in slots.
    device_episode: the same where they were sampled, for the update.
    texts: K lists of B answers.
    finals: K lists of B final answers, None where there is none.
    verdicts: K lists of B.
    times: seconds by metric key.
    start_s: when the parameters were there and sampling began, by `time.monotonic`.
  """

  problems: list[Problem]
  episode: Episode
  device_episode: Episode
  texts: list[list[str]]
  finals: list[list[str | None]]
  verdicts: list[list[Verdict]]
  times: dict[str, float]
  start_s: float

  @property
  def reward_BK(self) -> np.ndarray:
    """f32[B, K] raw rewards."""
    return np.asarray([[v.reward for v in turn] for turn in self.verdicts], np.float32).T


@dataclasses.dataclass(frozen=True)
class Collector:
  """Samples and grades the episodes of a step.

  Attributes:
    decoder: the model.
    spec: the episode's static shape.
    prompts: training problems that fit.
    task: the grader.
    tokenizer: ids to text.
    samples_per_problem: G.
    temperature: of the sampler.
    put: places this process's rows on the devices.
    seed: the run's.
    base_turn1_share: share of a step's problems whose turn 1 the base model answers.
    random_reward: the control's probability of a reward, whatever was answered; 0 asks the checker.
  """

  decoder: Decoder
  spec: RolloutSpec
  prompts: Prompts
  task: Task
  tokenizer: Tokenizer
  samples_per_problem: int
  temperature: float
  put: Callable
  seed: int
  base_turn1_share: float = 0.0
  random_reward: float = 0.0

  def collect(
    self, params: dict, step: int, indices_P: Sequence[int], base_params: dict | None = None
  ) -> Experience:
    """Plays one step's problems.

    A turn is graded in another thread while the device samples the next one.

    Args:
      params: the policy's parameters.
      step: names the random keys.
      indices_P: which of the prompts, this process's share.
      base_params: the base model's, for `base_turn1_share`.

    Returns:
      The experience.
    """
    G = self.samples_per_problem
    rows = np.repeat(np.asarray(indices_P), G)
    problems = [self.prompts.problems[i] for i in rows]
    ids_B = np.asarray([problem.id for problem in problems], np.int32)
    samples_B = np.tile(np.arange(G, dtype=np.int32), len(indices_P))
    (tokens_BT, is_token_BT), ids_B, samples_B = self.put(
      (fill_slots([self.prompts.ids[i] for i in rows], self.spec.prompt_tokens), ids_B, samples_B)
    )
    keys_B = episode_keys(self.seed, step, ids_B, samples_B)
    # Or the update before, which is still running, would be timed as sampling.
    jax.block_until_ready(params)
    start_s = time.monotonic()
    play = functools.partial(self._play, tokens_BT, is_token_BT, keys_B)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
      turns = []

      def after_turn(turn, e):
        turns.append(thread.submit(self._grade, problems, e, turn))

      is_base_P = self.is_base_first(step, [self.prompts.problems[i].id for i in indices_P])
      with jax.profiler.TraceAnnotation('rollout'):
        sampled = self._episode(play, params, base_params, np.repeat(is_base_P, G), after_turn)
        episode = local_rows(sampled)
      rollout_s = time.monotonic() - start_s
      texts, finals, verdicts, grade_s = zip(*[f.result() for f in turns], strict=True)
    verdicts = list(verdicts)
    if self.random_reward:
      verdicts = self._random_rewards(verdicts, step, problems)
    times = {
      'time/rollout_s': rollout_s,
      'time/grade_s': sum(grade_s),
      'time/grade_not_hidden_s': time.monotonic() - start_s - rollout_s,
    }
    return Experience(
      problems, episode, sampled, list(texts), list(finals), verdicts, times, start_s
    )

  @functools.partial(jax.profiler.annotate_function, name='grade')
  def _grade(self, problems, episode: Episode, turn: int):
    tokens_BT, turn_BT = local_rows((episode.tokens, episode.turn))
    start_s = time.monotonic()
    texts = turn_texts(tokens_BT, turn_BT, turn, self.tokenizer)
    verdicts = self.task.grade(problems, texts)
    finals = [self.task.final(text) for text in texts]
    return texts, finals, verdicts, time.monotonic() - start_s

  def is_base_first(self, step: int, problem_ids_P: Sequence[int]) -> np.ndarray:
    """Which problems' first answers are the base model's; by step and problem alone.

    Args:
      step: names the draw.
      problem_ids_P: of the problems.

    Returns:
      bool[P].
    """
    draws = [np.random.default_rng((self.seed, step, i)).random() for i in problem_ids_P]
    return np.asarray(draws) < self.base_turn1_share

  def _episode(self, play, params, base_params, is_base_B, after_turn) -> Episode:
    """Plays all turns; where the base model answers first, its answer is given, not sampled."""
    if not self.base_turn1_share:
      return play(params, self.spec, after_turn=after_turn)
    first_spec = self.spec.first_turns(1)
    first = play(base_params, first_spec)
    slots = slice(self.spec.prompt_tokens, self.spec.first_slot(1))
    if self.base_turn1_share < 1:
      # Both models answer every problem, with the same random keys: rows stay where they are.
      own, is_base_B1 = play(params, first_spec), self.put(is_base_B[:, None])
      first = _choose(is_base_B1, first, own)
    given = {0: (first.tokens[:, slots], first.is_token[:, slots])}
    episode = play(params, self.spec, given=given, after_turn=after_turn)
    if self.base_turn1_share < 1:
      episode = _mark_sampled(episode, own, is_base_B1, slots.start, slots.stop)
    return episode

  def _play(self, tokens_BT, is_token_BT, keys_B, params, spec, **more) -> Episode:
    more['samples_per_prompt'] = self.samples_per_problem
    return rollout(
      self.decoder, spec, params, tokens_BT, is_token_BT, keys_B, self.temperature, **more
    )

  def _random_rewards(
    self, verdicts: list[list[Verdict]], step: int, problems: Sequence[Problem]
  ) -> list[list[Verdict]]:
    """Replaces rewards by random ones that know nothing of the answers; the reasons stay."""
    G = self.samples_per_problem

    def reward(turn: int, b: int) -> float:
      rng = np.random.default_rng((self.seed, step, problems[b].id, b % G, turn))
      return float(rng.random() < self.random_reward)

    return [
      [Verdict(reward(turn, b), verdict.reason) for b, verdict in enumerate(rows)]
      for turn, rows in enumerate(verdicts)
    ]


@jax.jit
def _choose(is_base_B1, base: Episode, own: Episode) -> Episode:
  return jax.tree.map(lambda x, y: jnp.where(is_base_B1, x, y), base, own)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _mark_sampled(episode: Episode, own: Episode, is_base_B1, start: int, stop: int) -> Episode:
  """Marks the policy's own first answers, which were handed over as given, as its samples."""
  slots = slice(start, stop)
  is_mine = own.is_sampled[:, slots] & ~is_base_B1
  logp = jnp.where(is_mine, own.sampled_logp[:, slots], 0.0)
  return episode.replace(
    is_sampled=episode.is_sampled.at[:, slots].set(is_mine),
    sampled_logp=episode.sampled_logp.at[:, slots].set(logp),
  )
