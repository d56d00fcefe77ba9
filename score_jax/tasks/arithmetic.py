"""Sums of one-digit numbers, for the small policy that ships with the package.

    problem   4 + 7 + 9 + 2
    direct    = 22            given at once; the longer the sum, the more often wrong
    worked    11 20 = 22      running totals first; longer, and nearly always right

Every number is one token. The final answer is what stands after the last '='. A problem's level
is its number of addends: a worked answer to n addends takes n + 1 tokens with its end of turn, so
budgets decide what a turn can reach.

Which problems are held out is a property of the problem itself (a hash of its addends), so that
pretraining and RL, whatever their seeds, never see an evaluation problem.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from score_jax.tasks.base import Problem, Task, Verdict

INSTRUCTION = 'again'
TEST_SHARE = 8  # One problem in this many is held out.


def is_held_out(addends: Sequence[int]) -> bool:
  """Whether a sum belongs to the evaluation problems.

  Args:
    addends: the numbers, in order.

  Returns:
    True for about one sum in `TEST_SHARE`.

  Example:
    >>> sum(is_held_out([a, b]) for a in range(1, 10) for b in range(1, 10)) < 81 // 4
    True
  """
  digest = hashlib.blake2s(','.join(map(str, addends)).encode(), digest_size=4).digest()
  return int.from_bytes(digest, 'big') % TEST_SHARE == 0


def question_text(addends: Sequence[int]) -> str:
  """The problem's text: question_text([4, 7]) is '4 + 7'."""
  return ' + '.join(map(str, addends))


def direct_answer(total: int) -> str:
  """The answer given at once: direct_answer(22) is '= 22'."""
  return f'= {total}'


def worked_answer(addends: Sequence[int]) -> str:
  """The answer after its running totals.

  Args:
    addends: at least two numbers.

  Returns:
    The text of a worked answer.

  Example:
    >>> worked_answer([4, 7, 9, 2])
    '11 20 = 22'
  """
  totals = np.cumsum(addends)[1:]
  return ' '.join([*map(str, totals[:-1]), '=', str(totals[-1])])


def draw_addends(
  rng: np.random.Generator, level_weights: dict[int, float], held_out: bool
) -> list[int]:
  """Draws one problem.

  Args:
    rng: source of randomness.
    level_weights: relative frequency of each number of addends.
    held_out: whether to draw an evaluation problem or a training problem.

  Returns:
    The addends, each 1 to 9.
  """
  levels = sorted(level_weights)
  p = np.asarray([level_weights[n] for n in levels], float)
  n = int(rng.choice(levels, p=p / p.sum()))
  while True:
    addends = [int(a) for a in rng.integers(1, 10, n)]
    if is_held_out(addends) == held_out:
      return addends


def _problems(count: int, seed: int, level_weights, held_out: bool) -> list[Problem]:
  rng = np.random.default_rng((seed, int(held_out)))
  seen, problems = set(), []
  while len(problems) < count:
    addends = draw_addends(rng, level_weights, held_out)
    question = question_text(addends)
    if question not in seen:
      seen.add(question)
      answer = str(sum(addends))
      problems.append(Problem(len(problems), question, answer, level=str(len(addends))))
  return problems


def grade_one(problem: Problem, text: str) -> Verdict:
  """Grades one answer by what stands after its last '='.

  Args:
    problem: the problem.
    text: the model's answer.

  Returns:
    Reward 1 for exactly the right number, else 0 with the reason.

  Example:
    >>> grade_one(Problem(0, '4 + 7', '11'), '= 11').reward
    1.0
  """
  _, mark, final = text.rpartition('=')
  if not mark:
    return Verdict(0.0, 'no_answer')
  return Verdict(1.0, 'correct') if final.strip() == problem.answer else Verdict(0.0, 'wrong')


def load_arithmetic(
  num_train: int, num_test: int, seed: int, level_weights: dict[int, float]
) -> Task:
  """Generates the task.

  Args:
    num_train: training problems, all different.
    num_test: evaluation problems, all different and none a training problem.
    seed: of the generator.
    level_weights: relative frequency of each number of addends.

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
    close=lambda: None,
  )
