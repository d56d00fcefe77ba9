"""Sums of two integers, as text: for a chat model that is too small for MATH.

A model of 135 million parameters gets `a + b` right now and then, so that groups have mixed rewards
and there is something to learn. Problems are made, not read: none can have been memorised.
"""

import math
import random
from collections.abc import Sequence

from score_jax.tasks import base
from score_jax.tasks import math as math_task
from score_jax.tasks.math_checker import answers

# The paper's instruction for turn 2 without its last sentence: the plain prompt asks for no form.
PLAIN_INSTRUCTION = math_task.MATH_INSTRUCTION.partition(' At the end')[0]

_MAX_CHARS = 20_000


def load_arithmetic_text(
  *,
  low: int = 2,
  high: int = 20,
  num_train: int = 250,
  num_test: int = 100,
  seed: int = 0,
  style: str = 'plain',
) -> base.Task:
  """Problems 'What is a + b?' with a and b in low..high, both ends included.

  Pairs are drawn without replacement. `a + b` and `b + a` are two problems of the same split, so
  that nothing of the evaluation is seen in training.

  Args:
    low: smallest addend.
    high: largest addend.
    num_train: training problems.
    num_test: evaluation problems.
    seed: names the problems; the same arguments give the same task everywhere.
    style: 'plain', the question alone, or 'math', the paper's MATH prompt and instruction.

  Returns:
    A Task whose grader takes the final answer as on MATH, or else the last number of the text.

  Raises:
    ValueError: an unknown style, an empty range, no problems asked for, or more than there are.
  """
  if style not in ('plain', 'math'):
    raise ValueError(f"style={style!r} is unknown; choose 'plain' or 'math'.")
  if low > high or num_train < 1 or num_test < 1:
    raise ValueError(
      f'low={low} must not be above high={high}, and num_train={num_train} and '
      f'num_test={num_test} must be at least 1.'
    )
  train, test = _draw(low, high, num_train, num_test, seed)
  is_plain = style == 'plain'
  return base.Task(
    name='sums',
    train=train,
    test=test,
    prompt=(lambda problem: problem.question) if is_plain else math_task.math_prompt,
    instruction=PLAIN_INSTRUCTION if is_plain else math_task.MATH_INSTRUCTION,
    grade=grade_integers,
    final=final_number,
    close=lambda: None,
  )


def final_number(text: str) -> str | None:
  """The committed answer's last number, or else the text's: final_number('3 + 4 = 7.') is '7'."""
  committed = answers.extract_answer(text)
  return answers.last_number(text if committed is None else committed)


def grade_integers(problems: Sequence[base.Problem], texts: Sequence[str]) -> list[base.Verdict]:
  """Grades texts whose reference answers are integers; cheap and safe enough for this process.

  Args:
    problems: with an integer as `answer`.
    texts: what the model wrote, one per problem.

  Returns:
    One verdict per text.

  Example:
    >>> problem = base.Problem(0, 'What is 3 + 4?', '7')
    >>> [v.reason for v in grade_integers([problem] * 3, ['3 + 4 = 7.', 'It is 8.', 'Hm.'])]
    ['correct', 'wrong', 'no_answer']
  """
  base.check_same_length(problems, texts)
  return [
    _grade_integer(problem.answer, text) for problem, text in zip(problems, texts, strict=True)
  ]


def _grade_integer(reference: str, text: str) -> base.Verdict:
  if len(text) > _MAX_CHARS:
    return base.Verdict(0.0, 'too_long')
  number = final_number(text)
  if number is None:
    return base.Verdict(0.0, 'no_answer' if answers.extract_answer(text) is None else 'wrong')
  # Compared as text: a policy may write a number that no integer type should be asked to hold.
  whole, _, decimals = number.partition('.')
  is_right = not decimals.strip('0') and _plain(whole) == _plain(reference)
  return base.Verdict(1.0, 'correct') if is_right else base.Verdict(0.0, 'wrong')


def _plain(integer: str) -> str:
  """An integer's digits and sign in one way: '-007' is '-7', '-0' is '0'."""
  digits = integer.lstrip('-').lstrip('0') or '0'
  return '-' + digits if integer.startswith('-') and digits != '0' else digits


def _draw(
  low: int,
  high: int,
  num_train: int,
  num_test: int,
  seed: int,
) -> tuple[list[base.Problem], list[base.Problem]]:
  """Draws unordered pairs, and gives both orders of each to one split: test first, then train."""
  size = high - low + 1
  num_pairs = size * (size + 1) // 2
  rng = random.Random(seed)
  drawn = iter(rng.sample(range(num_pairs), min(num_pairs, num_train + num_test)))
  splits = []
  for name, wanted in (('num_test', num_test), ('num_train', num_train)):
    split = []
    while len(split) < wanted:
      index = next(drawn, None)
      if index is None:
        raise ValueError(
          f'{name}={wanted}, but only {len(split)} problems are left: low={low}..high={high} '
          f'gives {size * size} in all, for num_train={num_train} and num_test={num_test}; '
          'both orders of a sum go to one split.'
        )
      # Row `larger` of a triangle holds the pairs (larger, 0..larger).
      larger = (math.isqrt(8 * index + 1) - 1) // 2
      smaller = index - larger * (larger + 1) // 2
      orders = [(low + larger, low + smaller), (low + smaller, low + larger)]
      rng.shuffle(orders)
      split.extend(orders[:1] if larger == smaller else orders)
    rng.shuffle(split)
    splits.append(
      [
        base.Problem(i, f'What is {a} + {b}?', str(a + b))
        for i, (a, b) in enumerate(split[:wanted])
      ]
    )
  test, train = splits
  return train, test
