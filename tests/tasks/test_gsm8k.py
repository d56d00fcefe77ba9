"""GSM8K: asked as MATH is, and its reference numbers."""

from score_jax.tasks import base, gsm8k
from score_jax.tasks import math as math_task


def test_it_is_asked_as_math_is():
  problem = base.Problem(0, 'What is $2+2$?', '4')
  task = math_task.math_task('gsm8k', [problem], [])
  assert task.prompt(problem) == math_task.math_prompt(problem)
  assert task.instruction == math_task.MATH_INSTRUCTION


def test_the_reference_is_what_follows_the_mark():
  assert gsm8k.final_number('He has 3.\n#### 1,200 ') == '1200'
