"""Tasks whose answers are programs: what is run, and how it is graded."""

import gzip
import json
import re

import pytest

from score_jax.core.config import default_config
from score_jax.setup.task import make_task
from score_jax.tasks import base, humaneval, mbpp, programs


class Recorder:
  """A checker that passes what says so, and remembers what it was asked."""

  def __init__(self):
    self.items = []
    self.is_closed = False

  def grade(self, items):
    self.items += items
    return [base.Verdict(float('pass' in p), 'right' if 'pass' in p else 'wrong') for _, p in items]

  def close(self):
    self.is_closed = True


def problems(count):
  return [base.Problem(i, f'q{i}', f'assert f() == {i}') for i in range(count)]


def test_only_programs_are_run_and_verdicts_stay_in_order():
  checker = Recorder()
  task = mbpp.mbpp_task('mbpp', problems(4), [], '', checker)
  texts = ['def f():\n  return 0', 'I do not know.', '[BEGIN]\npass\n[DONE]\nmore', '']
  assert [v.reason for v in task.grade(task.train, texts)] == [
    'wrong',
    'no_answer',
    'right',
    'no_answer',
  ]
  assert [tests for tests, _ in checker.items] == ['assert f() == 0', 'assert f() == 2']
  assert checker.items[1][1].strip() == 'pass'
  assert task.grade([], []) == []
  with pytest.raises(ValueError, match='4 problems but 1 texts'):
    task.grade(task.train, ['x'])
  task.close()
  assert checker.is_closed


def test_an_answer_has_changed_if_its_program_has():
  task = mbpp.mbpp_task('mbpp', [], [], '', Recorder())
  same = [
    'def f():\n  return 1\n[DONE]',
    'Here:\n```python\ndef f():\r\n\n  return 1   \n```\nBye.',
  ]
  assert {task.final(text) for text in same} == {'def f():\n  return 1'}
  assert task.final('def f():\n return 1') != 'def f():\n  return 1'
  assert task.final('No idea.') is None
  assert programs.normalise_program('') == ''


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
    text = piece * (300_000 // len(piece))
    humaneval.complete_program(DOUBLE, text)
    programs.normalise_program(text)


# With the real checker.


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  c = default_config()
  c.data.cache = str(tmp_path_factory.mktemp('cache'))
  return c


def test_real_programs_are_graded(data_dir, config):
  """Reference solutions pass, and fail with a changed value; other problems' do not pass."""
  config.data.path = str(data_dir)
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


def test_real_functions_are_graded(data_dir, config):
  """As a whole and as a body; problems 32, 38 and 50 have helpers in their prompt."""
  config.data.path = str(data_dir)
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
