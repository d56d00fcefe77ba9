"""MATH: 12,000 problems to train on, and MATH500 to be measured on.

The paper gives its prompts as sentences and does not say how the problem is joined to them; here it
follows after an empty line, behind `Problem:`, the word that the prompt itself uses.
Source: arXiv:2409.12917, Appendix (prompts); splits of arXiv:2305.20050 (Lightman et al.).
"""

import logging
import os
from collections.abc import Sequence

from etils import epath

from score_jax.tasks import answers, base, jsonl, workers

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

_GRADER = 'score_jax.tasks.equality:grade_final_answer'


def math_prompt(problem: base.Problem) -> str:
  """The paper's zero-shot prompt, then the problem.

  Example:
    >>> math_prompt(base.Problem(0, 'What is $2+2$?', '4'))[-37:]
    'is correct."\\n\\nProblem: What is $2+2$?'
  """
  return f'{MATH_PROMPT}\n\nProblem: {problem.question}'


def load_math(
  data_path: str | os.PathLike[str],
  *,
  train_file: str = 'math/train.jsonl',
  test_file: str = 'math/test.jsonl',
  num_workers: int = 2,
  timeout_s: float = 5.0,
) -> base.Task:
  """MATH from JSON-lines files, graded in worker processes.

  Rows need `problem` and `answer` (LaTeX), and may have `level`. A row whose reference answer is
  empty stays, so that ids are positions in the file; its answers are never right, and it is said.

  Args:
    data_path: directory of both files, local or in a bucket.
    train_file: training split, relative to `data_path`.
    test_file: evaluation split, relative to `data_path`.
    num_workers: grading processes; they start with the first answer to grade.
    timeout_s: wall-clock seconds until an answer is given up.

  Returns:
    A Task; `close` ends the workers.

  Raises:
    ValueError: a file is missing, empty or broken (file and line are named).
  """
  root = epath.Path(data_path)
  train, test = (_read_problems(root / name) for name in (train_file, test_file))
  pool = workers.WorkerPool(_GRADER, num_workers=num_workers, timeout_s=timeout_s)

  def grade(problems: Sequence[base.Problem], texts: Sequence[str]) -> list[base.Verdict]:
    base.check_same_length(problems, texts)
    return pool.grade(
      [(problem.answer, text) for problem, text in zip(problems, texts, strict=True)]
    )

  return base.Task(
    name='math',
    train=train,
    test=test,
    prompt=math_prompt,
    instruction=MATH_INSTRUCTION,
    grade=grade,
    final=answers.extract_answer,
    close=pool.close,
  )


def _read_problems(path: epath.Path) -> list[base.Problem]:
  """One split."""
  rows = jsonl.read_jsonl(path, ('problem', 'answer'))
  problems = [
    base.Problem(
      id=i,
      question=row['problem'],
      answer=row['answer'],
      level='' if row.get('level') is None else str(row['level']),
    )
    for i, row in enumerate(rows)
  ]
  unanswered = [problem.id for problem in problems if not problem.answer.strip()]
  if unanswered:
    logging.getLogger(__name__).warning(
      '%s: %d of %d problems have no reference answer and can never be right: ids %s',
      path,
      len(unanswered),
      len(problems),
      unanswered[:10],
    )
  return problems
