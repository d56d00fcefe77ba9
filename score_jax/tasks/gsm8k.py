"""GSM8K: 7,473 word problems to train on, 1,319 to be measured on.

The paper does not train on GSM8K. It is asked here with the paper's MATH prompt and instruction, so
that a small model has problems it sometimes gets right, and graded by the MATH checker.
Source: arXiv:2110.14168 (data); arXiv:2409.12917, Appendix (prompts, written for MATH).
"""

import os

from score_jax.tasks import base
from score_jax.tasks.datasets import catalogue
from score_jax.tasks.datasets.read import read_splits
from score_jax.tasks.math import math_task


def final_number(solution: str) -> str:
  """The reference answer: what follows `####`, without thousands separators.

  Example:
    >>> final_number('48 / 2 = <<48/2=24>>24 clips. #### 1,024')
    '1024'
  """
  return solution.rpartition('####')[2].strip().replace(',', '')


def load_gsm8k(
  data_path: str | os.PathLike[str],
  *,
  cache: str | os.PathLike[str] = '',
  num_workers: int = 2,
  timeout_s: float = 5.0,
  refuse_restated: bool = True,
) -> base.Task:
  """GSM8K, asked and graded as MATH is.

  Args:
    data_path: directory with gsm8k/train.jsonl and gsm8k/test.jsonl, local or in a bucket; or
      'download'.
    cache: folder for prepared data; '' takes the user's cache folder.
    num_workers: grading processes.
    timeout_s: wall-clock seconds until an answer is given up.
    refuse_restated: see `score_jax.tasks.math.math_task`.

  Returns:
    A Task; `close` ends the workers.

  Raises:
    ValueError: a file is missing, empty or broken (file and line are named).
  """
  rows = read_splits(catalogue.GSM8K, data_path, cache)
  train, test = (
    [base.Problem(row['id'], row['question'], final_number(row['answer'])) for row in rows[split]]
    for split in ('train', 'test')
  )
  return math_task(
    'gsm8k',
    train,
    test,
    num_workers=num_workers,
    timeout_s=timeout_s,
    refuse_restated=refuse_restated,
  )
