"""MBPP-R: correct a wrong program for an MBPP problem, in one turn.

The set is made by `python -m score_jax.repair_set` from a policy of one's own, in the manner of Ni
et al. 2024, whose set of PaLM 2's failing programs is not public. docs/tasks.md says how the two
differ.
Source: arXiv:2404.14662 (NExT: MBPP-R); arXiv:2409.12917 uses it to measure offline repair.
"""

import os

from score_jax.tasks import base, programs
from score_jax.tasks.datasets import catalogue
from score_jax.tasks.datasets.read import read_splits
from score_jax.tasks.mbpp import few_shot_prefix, mbpp_task


def load_mbpp_r(
  set_path: str | os.PathLike[str],
  data_path: str | os.PathLike[str],
  checker: programs.Checker,
  *,
  cache: str | os.PathLike[str] = '',
) -> base.Task:
  """MBPP-R: evaluation problems whose `attempt` is the program to correct.

  Args:
    set_path: directory with programs.jsonl, as score_jax.repair_set wrote it.
    data_path: directory with mbpp/mbpp.jsonl, for the prompt's shots; or 'download'.
    checker: runs programs; the task's `close` closes it.
    cache: folder for prepared data; '' takes the user's cache folder.

  Returns:
    A Task without training problems.

  Raises:
    ValueError: a file is missing, empty or broken (file and line are named).
  """
  prefix = few_shot_prefix(read_splits(catalogue.MBPP, data_path, cache)['prompt'])
  rows = read_splits(catalogue.MBPP_R, set_path, cache)['test']
  problems = [
    base.Problem(row['id'], row['question'], row['tests'], attempt=row['program']) for row in rows
  ]
  return mbpp_task('mbpp_r', [], problems, prefix, checker)


def forced_answer(problem: base.Problem) -> str:
  """The wrong program as an answer to the prompt, which ends with `[BEGIN]`.

  Example:
    >>> forced_answer(base.Problem(0, 'Add.', '', attempt='def f(x):\\n  return x\\n'))
    'def f(x):\\n  return x\\n[DONE]'
  """
  return f'{problem.attempt.rstrip()}\n[DONE]'
