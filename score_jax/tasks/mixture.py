"""Two-turn examples of sums to pretrain the small base policy on.

The mixture gives the policy the habits of a pretrained model that is asked to look again: it knows
short sums, guesses at long ones, and at turn 2 mostly repeats itself, changes its mind now and then
for no reason, and seldom checks what it said, with a slip here and there. Or it works sums out, now
and then, at both turns. Nothing here knows what RL will reward.
"""

import dataclasses

import numpy as np

from score_jax.tasks.arithmetic import (
  check,
  direct_answer,
  draw_terms,
  last_digits,
  question_text,
  work,
  worked_answer,
)

# The habits, and what a table calls them.
HABITS = {
  'wrong_t1': 'wrong at turn 1 (context only)',
  'worked_t1': 'worked at turn 1',
  'checked_t1': 'checked at turn 1',
  'checked_t2': 'checked at turn 2',
  'slip': 'steps of a check that slip',
  'worked_t2': 'worked at turn 2, after an answer at once',
  'worked_again_t2': 'worked at turn 2, after a worked one',
  'changed_t2': 'another number at turn 2',
}


@dataclasses.dataclass(frozen=True)
class Mixture:
  """How often each habit stands in the pretraining data. Fractions, but for the first two.

  Attributes:
    level_weights: relative frequency of each number of terms.
    known_terms: sums of more terms than this get a guess as their first answer, any digit, unless
      it is worked; others get the right one.
    wrong_t1: first answers whose digit is replaced by a wrong one. Up to that digit they are
      context and are not trained, so they teach no errors at turn 1; what follows it is trained, a
      check or the end of the answer.
    worked_t1: first answers that are worked.
    checked_t1: first answers, of those that are not worked, that go on with a check of themselves.
    checked_t2: second answers that check the first.
    slip: steps of a check that go wrong. The check goes on from there, and is trained.
    worked_t2: second answers that are worked, after a first answer that is not.
    worked_again_t2: the same, after a worked first answer.
    changed_t2: second answers that are direct, with another digit (most often a wrong one); the
      rest repeats the first answer's digit.
  """

  level_weights: dict[int, float]
  known_terms: int
  wrong_t1: float = 0.0
  worked_t1: float = 0.0
  checked_t1: float = 0.0
  checked_t2: float = 0.0
  slip: float = 0.0
  worked_t2: float = 0.0
  worked_again_t2: float = 0.0
  changed_t2: float = 0.0

  def __post_init__(self):
    for name in HABITS:
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(f'config.phases: {name}={getattr(self, name)} must be from 0 to 1')
    worked = max(self.worked_t2, self.worked_again_t2)
    if worked > self.worked_t1:
      raise ValueError(
        f'config.phases: worked_t2={self.worked_t2} and worked_again_t2={self.worked_again_t2} '
        f'must not be above worked_t1={self.worked_t1}: the base policy must not be taught to '
        f'work at turn 2'
      )
    # Not exactly 1: as floating-point numbers 0.33 + 0.56 + 0.11 are more.
    if (total := worked + self.checked_t2 + self.changed_t2) > 1 + 1e-9:
      raise ValueError(
        f'config.phases: of the second answers {worked} are worked, {self.checked_t2} check and '
        f'{self.changed_t2} are changed (changed_t2): {total:g} in all, which must not be above 1'
      )


@dataclasses.dataclass(frozen=True)
class Example:
  """One two-turn example to pretrain on. Answers are trained, but for `wrong`.

  Attributes:
    question: the problem's text.
    wrong: the beginning of the first answer that is not trained, up to a wrong digit; '' where
      there is none.
    first: the first answer, or what follows `wrong` in it.
    second: the second answer.
  """

  question: str
  wrong: str
  first: str
  second: str


def _another(rng: np.random.Generator, digit: int) -> int:
  """Another digit."""
  return (digit + int(rng.integers(1, 10))) % 10


def _checked(rng: np.random.Generator, terms: list[int], said: int, slip: float) -> str:
  """A check of what was said, with slips."""
  is_slip = rng.random(len(terms)) < slip
  return check(terms, said, np.where(is_slip, rng.integers(1, 10, len(terms)), 0).tolist())


def draw_example(rng: np.random.Generator, mixture: Mixture) -> Example:
  """Draws one example of a problem that is not held out.

  Args:
    rng: source of randomness.
    mixture: the habits.

  Returns:
    The example.
  """
  terms = draw_terms(rng, mixture.level_weights, held_out=False)
  said = last_digits(terms)[-1]
  is_worked = rng.random() < mixture.worked_t1
  is_wrong = rng.random() < mixture.wrong_t1
  if is_wrong:
    said = _another(rng, said)
  elif len(terms) > mixture.known_terms and not is_worked:
    said = int(rng.integers(10))
  answer, more = direct_answer(said), ''
  if is_worked:
    answer = f'{work(terms)} {answer}'
  elif rng.random() < mixture.checked_t1:
    more = _checked(rng, terms, said, mixture.slip)
    said = int(more[-1])
  second = _second(rng, mixture, terms, said, is_worked)
  wrong, first = (answer, more) if is_wrong else ('', f'{answer} {more}'.strip())
  return Example(question_text(terms), wrong, first, second)


def _second(
  rng: np.random.Generator, mixture: Mixture, terms: list[int], said: int, is_worked: bool
) -> str:
  """The second answer, after a first one that ended in the digit `said`."""
  habit = rng.random()
  worked = mixture.worked_again_t2 if is_worked else mixture.worked_t2
  if habit < worked:
    return worked_answer(terms)
  if habit < worked + mixture.checked_t2:
    return _checked(rng, terms, said, mixture.slip)
  return direct_answer(_another(rng, said) if habit > 1 - mixture.changed_t2 else said)
