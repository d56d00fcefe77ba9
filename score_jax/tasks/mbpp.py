"""MBPP: short Python programs from a sentence and three tests, asked with three shots.

Splits as published: task ids 601-974 to train on, 11-510 to be measured on; 511-600 (validation)
is not used, and of 1-10 the shots are taken. A problem's id is its position in its split, so task
id 601 is training problem 0 and task id 11 is test problem 0.

The published format says what a shot looks like and not what stands between shots: here an empty
line. Line ends are `\\n` throughout; some rows of the file have `\\r\\n`.
Source: arXiv:2108.07732 (data, format); arXiv:2409.12917, Appendix (prompts).
"""

import os
from collections.abc import Mapping, Sequence

from score_jax.tasks import base, programs
from score_jax.tasks.datasets import catalogue
from score_jax.tasks.datasets.read import read_splits

SHOT_TASK_IDS = (2, 3, 4)

_EXPERT = 'You are an expert Python programmer, and here is your task: '
_TESTS = ' Your code should pass these tests:\n\n'


def mbpp_problem(row: Mapping) -> base.Problem:
  """A row as a problem: the question shows the sentence and the tests, as the prompt does.

  Args:
    row: `id`, `text`, `test_list` and `test_setup_code` of a row.

  Returns:
    The problem; its `answer` is the source of the tests.

  Example:
    >>> row = dict(id=0, text='Add.', test_list=['assert f(1) == 2'], test_setup_code='')
    >>> mbpp_problem(row).question
    'Add. Your code should pass these tests:\\n\\nassert f(1) == 2'
  """
  asserts = '\n'.join(map(_unix, row['test_list']))
  setup = _unix(row['test_setup_code'])
  return base.Problem(
    id=row['id'],
    question=f'{_unix(row["text"])}{_TESTS}{asserts}',
    answer=f'{setup}\n{asserts}' if setup.strip() else asserts,
  )


def mbpp_statement(problem: base.Problem) -> str:
  """The sentence without the tests: two problems with the same sentence are the same problem."""
  return problem.question.partition(_TESTS)[0]


def few_shot_prefix(rows: Sequence[Mapping]) -> str:
  """The shots that stand before every problem.

  Args:
    rows: of MBPP's prompt split, `SHOT_TASK_IDS` among them.

  Returns:
    The shots, each with the empty line behind it.

  Raises:
    ValueError: a shot is missing.
  """
  by_id = {row['task_id']: row for row in rows}
  missing = [task_id for task_id in SHOT_TASK_IDS if task_id not in by_id]
  if missing:
    raise ValueError(f'mbpp/mbpp.jsonl: the shots of the prompt, task_id {missing}, are missing')
  shots = [by_id[task_id] for task_id in SHOT_TASK_IDS]
  return ''.join(
    f'{_EXPERT}{mbpp_problem(row).question}\n\n[BEGIN]\n{_unix(row["code"])}\n[DONE]\n\n'
    for row in shots
  )


def mbpp_prompt(prefix: str, problem: base.Problem) -> str:
  """The shots, then the problem up to where its program begins.

  Example:
    >>> mbpp_prompt('', base.Problem(0, 'Add. ...', ''))
    'You are an expert Python programmer, and here is your task: Add. ...\\n\\n[BEGIN]\\n'
  """
  return f'{prefix}{_EXPERT}{problem.question}\n\n[BEGIN]\n'


def load_mbpp(
  data_path: str | os.PathLike[str],
  checker: programs.Checker,
  *,
  cache: str | os.PathLike[str] = '',
) -> base.Task:
  """MBPP, graded by running the program against the problem's three tests.

  Args:
    data_path: directory with mbpp/mbpp.jsonl, local or in a bucket; or 'download'.
    checker: runs programs; the task's `close` closes it.
    cache: folder for prepared data; '' takes the user's cache folder.

  Returns:
    A Task.

  Raises:
    ValueError: the file is missing, empty or broken (file and line are named).
  """
  rows = read_splits(catalogue.MBPP, data_path, cache)
  prefix = few_shot_prefix(rows['prompt'])
  train, test = ([mbpp_problem(row) for row in rows[split]] for split in ('train', 'test'))
  return mbpp_task('mbpp', train, test, prefix, checker)


def mbpp_task(
  name: str,
  train: Sequence[base.Problem],
  test: Sequence[base.Problem],
  prefix: str,
  checker: programs.Checker,
) -> base.Task:
  """A task of MBPP problems; see `load_mbpp` and `score_jax.tasks.mbpp_r`."""
  return programs.program_task(
    name,
    train,
    test,
    prompt=lambda problem: mbpp_prompt(prefix, problem),
    statement=mbpp_statement,
    checker=checker,
  )


def _unix(text: str) -> str:
  return text.replace('\r\n', '\n')
