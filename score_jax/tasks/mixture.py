"""Two-turn examples of sums to pretrain the small base policy on.

The mixture gives the policy the habits of a pretrained model: it can solve a problem the hard
way, usually answers at once, and at turn 2 mostly repeats itself. Worked answers are no likelier
at turn 2 than at turn 1. Nothing here knows what RL will reward.
"""

import dataclasses

import numpy as np

from score_jax.tasks.arithmetic import (
  direct_answer,
  draw_terms,
  last_digits,
  question_text,
  work,
  worked_answer,
)


@dataclasses.dataclass(frozen=True)
class Mixture:
  """How often each habit stands in the pretraining data. Fractions.

  Attributes:
    worked_t1: first answers that are worked; the rest is direct.
    wrong_t1: first answers whose digit is replaced by a wrong one. They are context for turn 2
      and are not trained, so they teach no errors at turn 1.
    worked_t2: second answers that are worked, after a direct first answer.
    worked_again_t2: the same, after a worked first answer.
    changed_t2: second answers that are direct, with another digit (most often a wrong one); the
      rest repeats the first answer's digit.
    level_weights: relative frequency of each number of terms.
  """

  worked_t1: float
  wrong_t1: float
  worked_t2: float
  worked_again_t2: float
  changed_t2: float
  level_weights: dict[int, float]

  def __post_init__(self):
    if max(self.worked_t2, self.worked_again_t2) > self.worked_t1:
      raise ValueError(
        f'config.phases: worked_t2={self.worked_t2} and worked_again_t2={self.worked_again_t2} '
        f'must not be above worked_t1={self.worked_t1}: the base policy must not be taught to '
        f'work at turn 2'
      )


@dataclasses.dataclass(frozen=True)
class Example:
  """One two-turn example to pretrain on.

  Attributes:
    question: the problem's text.
    first: the first answer.
    is_first_target: whether the first answer is trained.
    second: the second answer, always trained.
  """

  question: str
  first: str
  is_first_target: bool
  second: str


def _another(rng: np.random.Generator, digit: int) -> int:
  """Another digit."""
  return (digit + int(rng.integers(1, 10))) % 10


def draw_example(rng: np.random.Generator, mixture: Mixture) -> Example:
  """Draws one example of a problem that is not held out.

  Args:
    rng: source of randomness.
    mixture: the habits.

  Returns:
    The example.
  """
  terms = draw_terms(rng, mixture.level_weights, held_out=False)
  said = total = last_digits(terms)[-1]
  is_worked = rng.random() < mixture.worked_t1
  is_wrong = rng.random() < mixture.wrong_t1
  if is_wrong:
    said = _another(rng, total)
  first = direct_answer(said)
  if is_worked:
    first = f'{work(terms)} {first}'
  habit = rng.random()
  if habit < (mixture.worked_again_t2 if is_worked else mixture.worked_t2):
    second = worked_answer(terms)
  elif habit > 1 - mixture.changed_t2:
    second = direct_answer(_another(rng, said))
  else:
    second = direct_answer(said)
  return Example(question_text(terms), first, not is_wrong, second)
