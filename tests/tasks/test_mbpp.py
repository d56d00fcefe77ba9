"""MBPP: the prompt to the letter, and real programs graded."""

import json
import re
import types

import pytest

from score_jax.core.config import default_config
from score_jax.setup.task import make_task
from score_jax.tasks import base, mbpp, programs

MBPP_PROMPT = """\
You are an expert Python programmer, and here is your task: \
Write two. Your code should pass these tests:

assert two() == 2
assert two() != 3 

[BEGIN]
def two():
  return 2 
[DONE]

You are an expert Python programmer, and here is your task: \
Write three. Your code should pass these tests:

assert three() == 3

[BEGIN]
def three():
  return 3
[DONE]

You are an expert Python programmer, and here is your task: \
Write four. Your code should pass these tests:

assert four() == 4

[BEGIN]
def four():
  return 4
[DONE]

You are an expert Python programmer, and here is your task: \
Write a function to add. Your code should pass these tests:

assert add(1, 2) == 3
assert add(0, 0) == 0

[BEGIN]
"""


TWO = 'def two():\r\n  return 2 '


def mbpp_row(task_id, text, tests, code='', setup=''):
  return {
    'id': task_id - 1,
    'task_id': task_id,
    'text': text,
    'test_list': tests,
    'test_setup_code': setup,
    'code': code,
  }


SHOTS = [
  mbpp_row(1, 'Write one.', ['assert one() == 1'], 'def one():\n  return 1'),
  mbpp_row(2, 'Write two.', ['assert two() == 2', 'assert two() != 3 '], TWO),
  mbpp_row(3, 'Write three.', ['assert three() == 3'], 'def three():\n  return 3'),
  mbpp_row(4, 'Write four.', ['assert four() == 4'], 'def four():\n  return 4'),
  mbpp_row(5, 'Write five.', ['assert five() == 5'], 'def five():\n  return 5'),
]


ADD = mbpp.mbpp_problem(
  mbpp_row(11, 'Write a function to add.', ['assert add(1, 2) == 3', 'assert add(0, 0) == 0'])
)


NO_CHECKER = types.SimpleNamespace(grade=None, close=None)  # where nothing is graded


def test_mbpp_is_three_shots_and_the_problem():
  prefix = mbpp.few_shot_prefix(SHOTS)
  assert mbpp.mbpp_prompt(prefix, ADD) == MBPP_PROMPT
  task = mbpp.mbpp_task('mbpp', [ADD], [], prefix, NO_CHECKER)
  assert (task.prompt(ADD), task.instruction) == (MBPP_PROMPT, programs.CODE_INSTRUCTION)
  with pytest.raises(ValueError, match=r'the shots of the prompt, task_id \[3, 4\], are missing'):
    mbpp.few_shot_prefix(SHOTS[:2])


def test_mbpp_tests_have_their_setup_and_one_kind_of_line_end():
  row = mbpp_row(7, 'Walk.', ['assert f(root)'], setup='root = Node(1) \r\nroot.left = Node(2)')
  assert mbpp.mbpp_problem(row) == base.Problem(
    id=6,
    question='Walk. Your code should pass these tests:\n\nassert f(root)',
    answer='root = Node(1) \nroot.left = Node(2)\nassert f(root)',
  )
  assert mbpp.mbpp_statement(ADD) == 'Write a function to add.'


def test_real_programs_are_graded(data_dir, data_cache):
  """Reference solutions pass, and fail with a changed value; other problems' do not pass."""
  config = default_config()
  config.data.path, config.data.cache = str(data_dir), data_cache
  config.task.name = 'mbpp'
  task = make_task(config)
  lines = (data_dir / 'mbpp/mbpp.jsonl').read_text().splitlines()
  solutions = [json.loads(line) for line in lines]
  chosen = task.test[:6]
  codes = [solutions[problem.id + 10]['code'] for problem in chosen]
  try:
    assert [v.reason for v in task.grade(chosen, [f'{code}\n[DONE]' for code in codes])] == [
      'correct'
    ] * 6
    changed = [re.sub(r'return .*', 'return "nothing"', code) for code in codes]
    assert [v.reward for v in task.grade(chosen, changed)] == [0.0] * 6
    assert [v.reward for v in task.grade(chosen, codes[1:] + codes[:1])] == [0.0] * 6
  finally:
    task.close()
