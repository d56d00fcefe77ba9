"""The last digit of a sum, for the small policy that ships with the package.

    problem   4 +7 +9 +2 ?
    direct    = 2                         at once: known by heart, or guessed
    worked    +7 1 +9 0 +2 = 2            term by term with the last digit of each running total
    check     -2 0 -9 1 -7 4 -4 0 = 2     of the answer 2: the terms are taken from it again, last
                                          to first, each with the last digit of what is left
    check     -2 3 -9 4 -7 7 -4 3 = 2     of the answer 5: 3 is left, and 5 - 3 = 2

A worked answer needs the problem alone, so that it serves any turn. A check needs an answer to
start from; what is left of it is how far it was off. Without a slip both end in the right answer.

Every word is one token. The final answer is what stands after the last '='. A problem's level is
its number of terms: with its end of turn, an answer to n terms takes 3 tokens if it is direct, 2 n
if it is worked, 2 n + 3 if it is a check, so budgets decide what a turn can reach.

Which problems are held out is a property of the problem itself (a hash of its terms), so that
pretraining and RL, whatever their seeds, never see an evaluation problem.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np

from score_jax.tasks.base import Problem, Task, Verdict

INSTRUCTION = 'again'
TEST_SHARE = 8  # One problem in this many is held out.
# In vain, and there is no new problem left: of 852 sums of 4 terms, which are one in 8 of all, the
# last is missed by so many draws once in 4 million.
MAX_DRAWS = 100_000


def is_held_out(terms: Sequence[int]) -> bool:
  """Whether a problem belongs to the evaluation problems.

  Args:
    terms: the numbers, in order.

  Returns:
    True for about one problem in `TEST_SHARE`.

  Example:
    >>> is_held_out([4, 7, 9]), is_held_out([4, 7, 8])
    (False, False)
  """
  digest = hashlib.blake2s(','.join(map(str, terms)).encode(), digest_size=4).digest()
  return int.from_bytes(digest, 'big') % TEST_SHARE == 0


def last_digits(terms: Sequence[int]) -> list[int]:
  """The last digit of each running total but the first: last_digits([4, 7, 9]) is [1, 0]."""
  return [int(t) for t in np.cumsum(terms)[1:] % 10]


def question_text(terms: Sequence[int]) -> str:
  """The problem's text: question_text([4, 7, 9]) is '4 +7 +9 ?'."""
  return ' '.join([str(terms[0]), *(f'+{term}' for term in terms[1:]), '?'])


def direct_answer(digit: int) -> str:
  """An answer without work: direct_answer(2) is '= 2'."""
  return f'= {digit}'


def work(terms: Sequence[int]) -> str:
  """What a worked answer says before its final answer.

  Args:
    terms: at least two numbers.

  Returns:
    Each term with the last digit of the running total; the last total is left to the answer.

  Example:
    >>> work([4, 7, 9, 2])
    '+7 1 +9 0 +2'
  """
  steps = [f'+{term} {digit}' for term, digit in zip(terms[1:], last_digits(terms), strict=True)]
  return ' '.join(steps).rpartition(' ')[0]


def worked_answer(terms: Sequence[int]) -> str:
  """A worked answer: worked_answer([4, 7, 9]) is '+7 1 +9 = 0'."""
  return f'{work(terms)} {direct_answer(last_digits(terms)[-1])}'


def check(terms: Sequence[int], said: int, slips: Sequence[int] = ()) -> str:
  """A check of an answer, and the answer that it leads to.

  The terms are taken from the answer again, last to first, each followed by the last digit of what
  is left. A right answer leaves 0 and is repeated; what is left of another is taken from it.

  Args:
    terms: the numbers, in order.
    said: the answer to check, a digit.
    slips: how far each step goes wrong, one number for each term; the check goes on from there.
      Empty for a check without slips.

  Returns:
    The check with its final answer.

  Raises:
    ValueError: for another number of slips than of terms.

  Example:
    >>> check([4, 7, 9], 0), check([4, 7, 9], 4)
    ('-9 1 -7 4 -4 0 = 0', '-9 5 -7 8 -4 4 = 0')
    >>> check([4, 7, 9], 4, [0, 2, 0])
    '-9 5 -7 0 -4 6 = 8'
  """
  left, steps = said, []
  for term, slip in zip(reversed(terms), slips or [0] * len(terms), strict=True):
    left = (left - term + slip) % 10
    steps.append(f'-{term} {left}')
  return f'{" ".join(steps)} {direct_answer((said - left) % 10)}'


def read_levels(weights: Mapping[str, float], key: str) -> dict[int, float]:
  """Reads how often sums of each number of terms are drawn.

  Args:
    weights: of a config, whose names are texts.
    key: of the config, for errors.

  Returns:
    Number of terms -> relative frequency.

  Raises:
    ValueError: for no level, for one that is no number from 2, or for a weight that is not above 0.

  Example:
    >>> read_levels({'3': 1, '4': 2.5}, 'config.task.level_weights')
    {3: 1.0, 4: 2.5}
  """
  for level, weight in weights.items():
    is_level = str(level).isdecimal() and int(level) >= 2
    if not is_level or not isinstance(weight, int | float) or not 0 < weight < math.inf:
      told = ', '.join(f'{k}: {v}' for k, v in weights.items())
      raise ValueError(
        f'{key}={{{told}}} must give numbers of addends from 2 on weights above 0, such as '
        "{'3': 1.0, '4': 2.0}"
      )
  if not weights:
    raise ValueError(f'{key} is empty: give each number of addends a weight')
  return {int(level): float(weight) for level, weight in weights.items()}


def draw_terms(
  rng: np.random.Generator, level_weights: dict[int, float], held_out: bool
) -> list[int]:
  """Draws one problem.

  Args:
    rng: source of randomness.
    level_weights: relative frequency of each number of terms.
    held_out: whether to draw an evaluation problem or a training problem.

  Returns:
    The terms, 1 to 9 each.
  """
  n = _draw_level(rng, level_weights)
  while True:
    terms = rng.integers(1, 10, n).tolist()
    if is_held_out(terms) == held_out:
      return terms


def _draw_level(rng: np.random.Generator, level_weights: dict[int, float]) -> int:
  levels = sorted(level_weights)
  p = np.asarray([level_weights[n] for n in levels], float)
  return int(rng.choice(levels, p=p / p.sum()))


def _problems(count: int, seed: int, level_weights, held_out: bool) -> list[Problem]:
  rng = np.random.default_rng((seed, int(held_out)))
  seen, problems = set(), []
  while len(problems) < count:
    # The level first: where few problems of it are left, it is drawn no less often.
    n = _draw_level(rng, level_weights)
    terms = _new_terms(rng, n, held_out, seen)
    if terms is None:
      key, of = ('num_test', 'held-out') if held_out else ('num_train', 'training')
      there = sum(len(terms) == n for terms in seen)
      raise ValueError(
        f'config.task.{key}={count} with config.task.level_weights={dict(level_weights)} asks for '
        f'more sums of {n} terms than there are, about {there} {of} ones: lower {key} or the '
        f'weight of {n}'
      )
    seen.add(tuple(terms))
    answer = str(last_digits(terms)[-1])
    problems.append(Problem(len(problems), question_text(terms), answer, level=str(n)))
  return problems


def _new_terms(rng: np.random.Generator, n: int, held_out: bool, seen) -> list[int] | None:
  """Terms of a sum that has not been drawn; None where there is none left."""
  for _ in range(MAX_DRAWS):
    terms = rng.integers(1, 10, n).tolist()
    if tuple(terms) not in seen and is_held_out(terms) == held_out:
      return terms
  return None


def final_answer(text: str) -> str | None:
  """What stands after the last '=', None without one: final_answer('+7 1 = 0') is '0'."""
  _, mark, final = text.rpartition('=')
  return final.strip() if mark else None


def grade_one(problem: Problem, text: str) -> Verdict:
  """Grades one answer by what stands after its last '='.

  Args:
    problem: the problem.
    text: the model's answer.

  Returns:
    Reward 1 for exactly the right digit, else 0 with the reason.

  Example:
    >>> grade_one(Problem(0, '4 +7 ?', '1'), '= 1').reward
    1.0
  """
  final = final_answer(text)
  if final is None:
    return Verdict(0.0, 'no_answer')
  return Verdict(1.0, 'correct') if final == problem.answer else Verdict(0.0, 'wrong')


def load_arithmetic(
  num_train: int, num_test: int, seed: int, level_weights: dict[int, float]
) -> Task:
  """Generates the task.

  Args:
    num_train: training problems, all different.
    num_test: evaluation problems, all different and none a training problem.
    seed: of the generator.
    level_weights: relative frequency of each number of terms.

  Returns:
    The task.
  """
  return Task(
    name='arithmetic',
    train=_problems(num_train, seed, level_weights, held_out=False),
    test=_problems(num_test, seed, level_weights, held_out=True),
    prompt=lambda problem: problem.question,
    instruction=INSTRUCTION,
    grade=lambda problems, texts: [grade_one(p, t) for p, t in zip(problems, texts, strict=True)],
    final=final_answer,
    close=lambda: None,
  )
