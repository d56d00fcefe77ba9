"""MATH: 12,000 problems to train on, and MATH500 to be measured on.

The paper gives its prompts as sentences and does not say how the problem follows them; here it
follows after an empty line, behind `Problem:`, the word that the prompt itself uses.
Source: arXiv:2409.12917, Appendix (prompts); splits of arXiv:2305.20050 (Lightman et al.).
"""

import logging
import os
from collections.abc import Sequence

from score_jax.tasks import base
from score_jax.tasks.datasets import catalogue
from score_jax.tasks.datasets.read import read_splits
from score_jax.tasks.math_checker import answers
from score_jax.tasks.workers.pool import WorkerPool

MATH_PROMPT = (
  'You are a math expert. When you respond, respond only with the Solution of the final Problem, '
  'thinking step by step. At the end of the Solution, when you give your final answer, write it '
  'in the form "Final Answer: The final answer is $answer$. I hope it is correct."'
)

MATH_INSTRUCTION = (
  'There might be an error in the solution above because of lack of understanding of the '
  'question. Please correct the error, if any, and rewrite the solution. Only output the final '
  'solution! At the end of the Solution, when you give your final answer, write it in the form '
  '"Final Answer: The final answer is $answer$. I hope it is correct."'
)

_CHECKER = 'score_jax.tasks.math_checker'
_CACHE_SIZE = 1 << 15  # verdicts, some 10 MB
# Of a question that is longer, the beginning is held against answers: an item has 20,000 in all.
_MAX_QUESTION_CHARS = 10_000


def math_prompt(problem: base.Problem) -> str:
  """The paper's zero-shot prompt, then the problem.

  Example:
    >>> math_prompt(base.Problem(0, 'What is $2+2$?', '4'))[-37:]
    'is correct."\\n\\nProblem: What is $2+2$?'
  """
  return f'{MATH_PROMPT}\n\nProblem: {problem.question}'


def math_task(
  name: str,
  train: Sequence[base.Problem],
  test: Sequence[base.Problem],
  *,
  num_workers: int = 2,
  timeout_s: float = 5.0,
  refuse_restated: bool = True,
) -> base.Task:
  """Problems with an answer in LaTeX, asked and graded as on MATH.

  Args:
    name: of the task.
    train: training problems.
    test: evaluation problems.
    num_workers: grading processes; they start with the first answer to grade.
    timeout_s: wall-clock seconds until an answer is given up.
    refuse_restated: whether a right answer that is a formula of the question gets nothing, see
      `math_checker.restated`.

  Returns:
    A Task; `close` ends the workers.
  """
  grader = f'{_CHECKER}.{"restated" if refuse_restated else "equality"}:grade_final_answer'
  pool = WorkerPool(grader, num_workers=num_workers, timeout_s=timeout_s, cache_size=_CACHE_SIZE)

  def decisive(text: str) -> str:
    # Different texts with the same final answer are one item. A text that is too long stays so.
    return text if len(text) > pool.max_chars else answers.final_part(text)

  def grade(problems: Sequence[base.Problem], texts: Sequence[str]) -> list[base.Verdict]:
    base.check_same_length(problems, texts)
    both = zip(problems, texts, strict=True)
    return pool.grade([(p.answer, decisive(t), p.question[:_MAX_QUESTION_CHARS]) for p, t in both])

  return base.Task(
    name=name,
    train=train,
    test=test,
    prompt=math_prompt,
    instruction=MATH_INSTRUCTION,
    grade=grade,
    final=answers.extract_answer,
    close=pool.close,
  )


def load_math(
  data_path: str | os.PathLike[str],
  *,
  cache: str | os.PathLike[str] = '',
  num_workers: int = 2,
  timeout_s: float = 5.0,
  refuse_restated: bool = True,
) -> base.Task:
  """MATH, graded in worker processes.

  Rows need `problem` and `answer` (LaTeX), and may have `level`. A row whose reference answer is
  empty stays, so that ids are positions in the file; its answers are never right, and it is said.
  So is a row whose problem is empty.

  Args:
    data_path: directory with math/train.jsonl and math/test.jsonl, local or in a bucket; or
      'download'.
    cache: folder for prepared data; '' takes the user's cache folder.
    num_workers: see `math_task`.
    timeout_s: see `math_task`.
    refuse_restated: see `math_task`.

  Returns:
    A Task; `close` ends the workers.

  Raises:
    ValueError: a file is missing, empty or broken (file and line are named).
  """
  rows = read_splits(catalogue.MATH, data_path, cache)
  train, test = (_problems(rows[split], split) for split in ('train', 'test'))
  return math_task(
    'math',
    train,
    test,
    num_workers=num_workers,
    timeout_s=timeout_s,
    refuse_restated=refuse_restated,
  )


def _problems(rows: Sequence[dict], split: str) -> list[base.Problem]:
  """One split."""
  problems = [
    base.Problem(row['id'], row['problem'], row['answer'], level=row['level']) for row in rows
  ]
  for what, ids in {
    'no text': [problem.id for problem in problems if not problem.question.strip()],
    'no reference answer and can never be right': [
      problem.id for problem in problems if not problem.answer.strip()
    ],
  }.items():
    if ids:
      logging.getLogger(__name__).warning(
        'math %s: %d of %d problems have %s: ids %s', split, len(ids), len(problems), what, ids[:10]
      )
  return problems
