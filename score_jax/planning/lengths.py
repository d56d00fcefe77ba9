"""How long the episodes of a training step are: as long as they may be, or as real ones.

Real answers are taken to be as long as MATH's own solutions, prompts to be made of MATH's problems.
Of both the mean and the median are known (12,000 of them, 2.7 characters a token), and a lognormal
with these two has a hundredth above 836 tokens, where the solutions have 795.
"""

import dataclasses
import math
import statistics

import numpy as np

from score_jax.rollout.layout import RolloutSpec

_SOLUTION = (198, 151)  # mean and median, tokens
_PROBLEM = (75, 54)


@dataclasses.dataclass(frozen=True)
class Lengths:
  """Tokens of the episodes of a step, G of each problem one after the other.

  Attributes:
    prompts: i64[B].
    answers: i64[B, K], the end of turn left out.
    inputs: K - 1 numbers, of what is given between two answers: end of turn and instruction.
    samples: G.
  """

  prompts: np.ndarray
  answers: np.ndarray
  inputs: tuple[int, ...]
  samples: int

  @property
  def rows(self) -> np.ndarray:
    """i64[B] all tokens of each."""
    return self.prompts + self.answers.sum(axis=1) + sum(self.inputs)

  @property
  def sampled(self) -> int:
    """Tokens of all answers."""
    return int(self.answers.sum())


def full_lengths(spec: RolloutSpec, problems: int, samples: int) -> Lengths:
  """Episodes that take all their slots.

  Args:
    spec: budgets and instructions.
    problems: P.
    samples: G.
  """
  rows = problems * samples
  prompts = np.full(rows, spec.prompt_tokens)
  return _lengths(spec, prompts, np.tile(spec.turn_tokens, (rows, 1)), samples)


def real_lengths(spec: RolloutSpec, problems: int, samples: int, around: int) -> Lengths:
  """Episodes as long as real ones: the same ones each time.

  Args:
    spec: budgets, at which answers and prompts are cut, and instructions.
    problems: P.
    samples: G.
    around: tokens of a prompt beside the problem.

  Returns:
    Lengths at even quantiles, shuffled.
  """
  rng = np.random.default_rng(0)
  each = rng.permutation(around + quantiles(*_PROBLEM, problems))
  answers = rng.permutation(quantiles(*_SOLUTION, problems * samples * spec.num_turns))
  prompts = np.repeat(np.minimum(each, spec.prompt_tokens), samples)
  return _lengths(
    spec, prompts, np.minimum(answers.reshape(-1, spec.num_turns), spec.turn_tokens), samples
  )


def _lengths(spec, prompts, answers, samples) -> Lengths:
  inputs = tuple(spec.input_slots(k) for k in range(1, spec.num_turns))
  return Lengths(prompts, answers, inputs, samples)


def quantiles(mean: float, median: float, count: int) -> np.ndarray:
  """Whole numbers, at least 1, that lie as a lognormal does.

      ln n = ln median + sigma z,  mean = median exp(sigma^2 / 2)

  Args:
    mean: of the lognormal.
    median: of the same.
    count: how many numbers.

  Returns:
    i64[count], ascending.

  Example:
    >>> quantiles(198, 151, 3).tolist()
    [74, 151, 308]
  """
  sigma = math.sqrt(2 * math.log(mean / median))
  normal = statistics.NormalDist(math.log(median), sigma)
  log_n = np.asarray([normal.inv_cdf((i + 0.5) / count) for i in range(count)])
  return np.maximum(np.rint(np.exp(log_n)).astype(int), 1)
