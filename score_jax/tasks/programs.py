"""What all tasks of writing a program share: the instruction, and grading by tests.

A problem's `answer` is the Python source of its tests. What a text holds is turned into a program,
and the checker runs the program against the tests in its sandbox; nothing runs in this process.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from score_jax.tasks import base
from score_jax.tasks.code import counting
from score_jax.tasks.code.extract import extract_program

CODE_INSTRUCTION = (
  '# There might be an error in the code above because of lack of understanding of the question. '
  'Please correct the error, if any, and rewrite the solution. Only output the final correct '
  'Python program!'
)


class Checker(Protocol):
  """Runs programs against tests; `score_jax.tasks.code.checker.CodeChecker` is one."""

  def grade(self, items: Sequence[tuple[str, str]]) -> list[base.Verdict]:
    """(tests, program) pairs -> one verdict each, in order."""

  def close(self) -> None:
    """Ends what `grade` started."""


def normalise_program(program: str) -> str:
  """A program without what cannot change what it does: spaces at line ends, empty lines.

  Plain text work: a policy may write what no parser should be handed in this process. Comments and
  names count as a change.

  Example:
    >>> normalise_program('def f():\\r\\n\\n  return 1  \\n')
    'def f():\\n  return 1'
  """
  lines = (line.rstrip() for line in program.splitlines())
  return '\n'.join(line for line in lines if line)


def find_program(problem: base.Problem, text: str) -> str | None:
  """The program in a text: what defines the names that the problem's tests call.

  Raises:
    ValueError: the problem's tests do not parse or have no assert.

  Example:
    >>> text = '```\\ndef f():\\n  return 1\\n```\\nTry:\\n```\\ndef main():\\n  print(f())\\n```'
    >>> find_program(base.Problem(0, '', 'assert f() == 1'), text)
    'def f():\\n  return 1'
  """
  return extract_program(text, counting.prepare(problem.answer).program_names)


def program_task(
  name: str,
  train: Sequence[base.Problem],
  test: Sequence[base.Problem],
  *,
  prompt: Callable[[base.Problem], str],
  statement: Callable[[base.Problem], str],
  checker: Checker,
  find_program: Callable[[base.Problem, str], str | None] = find_program,
  find_text: Callable[[str], str | None] = extract_program,
) -> base.Task:
  """A task whose answers are programs.

  Args:
    name: of the task.
    train: training problems.
    test: evaluation problems.
    prompt: as of `Task`.
    statement: as of `Task`.
    checker: runs programs; `close` of the task closes it.
    find_program: (problem, a model's text) -> the program to run, None where there is none.
    find_text: a model's text -> the part that is its answer, whatever the problem; to tell whether
      an answer changed.

  Returns:
    A Task.
  """

  def grade(problems: Sequence[base.Problem], texts: Sequence[str]) -> list[base.Verdict]:
    base.check_same_length(problems, texts)
    programs = [find_program(*pair) for pair in zip(problems, texts, strict=True)]
    found = [i for i, program in enumerate(programs) if program is not None]
    verdicts = [base.Verdict(0.0, 'no_answer')] * len(texts)
    graded = checker.grade([(problems[i].answer, programs[i]) for i in found])
    for i, verdict in zip(found, graded, strict=True):
      verdicts[i] = verdict
    return verdicts

  def final(text: str) -> str | None:
    answer = find_text(text)
    return None if answer is None else normalise_program(answer)

  return base.Task(
    name=name,
    train=train,
    test=test,
    prompt=prompt,
    instruction=CODE_INSTRUCTION,
    grade=grade,
    final=final,
    close=checker.close,
    statement=statement,
  )
