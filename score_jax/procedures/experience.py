"""What one step learns from: the episodes of its problems, read and graded."""

import concurrent.futures
import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

from score_jax.core.sharding import local_rows
from score_jax.core.tokenizers import Tokenizer
from score_jax.core.types import Episode
from score_jax.model.decoder import Decoder
from score_jax.procedures.keys import episode_keys
from score_jax.procedures.layout import RolloutSpec
from score_jax.procedures.rollout import rollout
from score_jax.procedures.text import Prompts, fill_slots, turn_texts
from score_jax.tasks.base import Problem, Task


@dataclasses.dataclass(frozen=True)
class Experience:
  """B = P * G graded episodes on the host, problem-major: the rows of this process.

  Attributes:
    problems: B problems, each G times.
    episode: the rows, in slots.
    texts: K lists of B answers.
    verdicts: K lists of B [reward, reason].
    times: seconds by metric key.
  """

  problems: list[Problem]
  episode: Episode
  texts: list[list[str]]
  verdicts: list[list[list]]
  times: dict[str, float]

  @property
  def reward_BK(self) -> np.ndarray:
    """f32[B, K] raw rewards."""
    return np.asarray([[v[0] for v in turn] for turn in self.verdicts], np.float32).T


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

  def collect(
    self, params: dict, step: int, indices_P: Sequence[int], first_turn_params: dict | None = None
  ) -> Experience:
    """Plays one step's problems.

    A turn is graded in another thread while the device samples the next one.

    Args:
      params: the policy's parameters.
      step: names the random keys.
      indices_P: which of the prompts, this process's share.
      first_turn_params: if given, turn 1 is sampled from these (the base model) and only context.

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
    start_s = time.monotonic()
    given = None
    if first_turn_params is not None:
      given = {0: self._first_turn(first_turn_params, tokens_BT, is_token_BT, keys_B)}
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
      turns = []
      episode = rollout(
        self.decoder,
        self.spec,
        params,
        tokens_BT,
        is_token_BT,
        keys_B,
        self.temperature,
        given,
        after_turn=lambda turn, e: turns.append(thread.submit(self._grade, problems, e, turn)),
      )
      episode = local_rows(episode)
      rollout_s = time.monotonic() - start_s
      texts, verdicts, grade_s = zip(*[future.result() for future in turns], strict=True)
    times = {
      'time/rollout_s': rollout_s,
      'time/grade_s': sum(grade_s),
      'time/grade_not_hidden_s': time.monotonic() - start_s - rollout_s,
    }
    return Experience(problems, episode, list(texts), list(verdicts), times)

  def _grade(self, problems, episode: Episode, turn: int):
    tokens_BT, turn_BT = local_rows((episode.tokens, episode.turn))
    start_s = time.monotonic()
    texts = turn_texts(tokens_BT, turn_BT, turn, self.tokenizer)
    verdicts = [[v.reward, v.reason] for v in self.task.grade(problems, texts)]
    return texts, verdicts, time.monotonic() - start_s

  def _first_turn(self, params, tokens_BT, is_token_BT, keys_B):
    """Samples only turn 1, and hands it over as a given answer."""
    spec = dataclasses.replace(self.spec, turn_tokens=self.spec.turn_tokens[:1], followup_ids=())
    episode = rollout(self.decoder, spec, params, tokens_BT, is_token_BT, keys_B, self.temperature)
    first = spec.prompt_tokens
    return episode.tokens[:, first:], episode.is_sampled[:, first:]
