"""HumanEval: the published prompt, an answer as a whole function or as its body."""

import gzip
import json

import pytest

from score_jax.core.config import default_config
from score_jax.setup.task import make_task
from score_jax.tasks import base, humaneval

HEADER = """\
from typing import List

def f(x: List[int]) -> int:
    ''' Sum. >>> f([1])
    1
    '''
"""


def test_humaneval_is_the_published_prompt_without_its_tests():
  problem = base.Problem(0, HEADER, 'def check(candidate):\n  assert candidate([2]) == 2\ncheck(f)')
  assert humaneval.humaneval_prompt(problem) == HEADER
  assert humaneval.entry_point(problem) == 'f'
  assert humaneval.humaneval_statement(problem) == ' Sum. '


PROMPT = (
  'import math\n\ndef helper(x):\n    """Half."""\n    return x / 2\n\n'
  'def f(x):\n    """Doubles.\n    >>> f(1)\n    2\n    """\n'
)


DOUBLE = base.Problem(0, PROMPT, 'def check(candidate):\n  assert candidate(2) == 4\n\ncheck(f)')


WHOLE = 'def f(x):\n    return 2 * x'


ABOVE = PROMPT[: PROMPT.index('def f(')]


@pytest.mark.parametrize(
  ('text', 'program'),
  [
    (WHOLE, ABOVE + WHOLE),
    (f'Sure!\n```python\n{WHOLE}\n```\nDone.', ABOVE + WHOLE),
    ('    return 2 * x', f'{PROMPT}    return 2 * x\n'),
    (
      '\n    y = 2\n\n    return y * x\n\nprint(f(1))',
      f'{PROMPT}\n    y = 2\n\n    return y * x\n\n',
    ),
    ('```python\n    return 2 * x\n```', f'{PROMPT}    return 2 * x\n'),
    ('def g(x):\n    return 2 * x', 'def g(x):\n    return 2 * x'),
    ('It doubles.', None),
    ('', None),
  ],
)
def test_a_humaneval_answer_is_the_function_or_its_body(text, program):
  assert humaneval.complete_program(DOUBLE, text) == program


def test_the_longest_texts_take_no_time():
  for piece in (' ', '\n', '    x\n', 'def f\n', '```\n'):
    humaneval.complete_program(DOUBLE, piece * (300_000 // len(piece)))


def test_real_functions_are_graded(data_dir, data_cache):
  """As a whole and as a body; problems 32, 38 and 50 have helpers in their prompt."""
  config = default_config()
  config.data.path, config.data.cache = str(data_dir), data_cache
  config.task.name = 'humaneval'
  task = make_task(config)
  assert task.train == []
  with gzip.open(data_dir / 'humaneval/HumanEval.jsonl.gz', 'rt') as file:
    rows = [json.loads(line) for line in file]
  ids = [0, 1, 32, 38, 50]
  chosen = [task.test[i] for i in ids]
  bodies = [rows[i]['canonical_solution'] for i in ids]
  wholes = [
    rows[i]['prompt'][rows[i]['prompt'].rindex(f'def {rows[i]["entry_point"]}(') :] + body
    for i, body in zip(ids, bodies, strict=True)
  ]
  try:
    for texts in (bodies, wholes, [f'```python\n{whole}\n```' for whole in wholes]):
      assert [v.reason for v in task.grade(chosen, texts)] == ['correct'] * len(ids)
    empty = ['    return None\n'] * len(ids)
    assert [v.reward for v in task.grade(chosen, empty)] == [0.0] * len(ids)
  finally:
    task.close()
