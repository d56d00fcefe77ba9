"""HumanEval: complete a function from its header and docstring. For evaluation only.

Zero-shot: the prompt is the published one, letter for letter, without the tests. A model may write
the whole function again or go on from the docstring; both are graded.
Source: arXiv:2107.03374 (data); arXiv:2409.12917 (zero-shot, the function header and docstring).
"""

import os
import re
from collections.abc import Mapping

from score_jax.tasks import base, programs
from score_jax.tasks.code.checker import helpers
from score_jax.tasks.code.extract import answer_part, extract_body, extract_program, future_first
from score_jax.tasks.datasets import catalogue
from score_jax.tasks.datasets.read import read_splits

_CALL = re.compile(r'check\((\w+)\)\s*\Z')
_DEFINES = r'^(?:(?:async )?def {0}\b|{0}\s*+(?::[^=\n]*+)?=(?!=))'
_EXAMPLES = re.compile(r'>>>|\bexamples?\b|\bfor example\b', re.IGNORECASE)


def humaneval_prompt(problem: base.Problem) -> str:
  """The function's header and docstring, as published."""
  return problem.question


def entry_point(problem: base.Problem) -> str:
  """The function that the tests call: the argument of the call that ends them.

  Example:
    >>> entry_point(base.Problem(0, '', 'def check(candidate): ...\\ncheck(add)'))
    'add'
  """
  return _CALL.search(problem.answer).group(1)


def humaneval_statement(problem: base.Problem) -> str:
  """The docstring up to its examples: what the function is to do, without its name."""
  header = problem.question.rfind(f'def {entry_point(problem)}(')
  docstring = re.split(r'"""|\'\'\'', problem.question[header:])[1:2]
  return _EXAMPLES.split(''.join(docstring))[0]


def complete_program(problem: base.Problem, text: str) -> str | None:
  """The program that a text stands for, with what the prompt already gave.

  Args:
    problem: gives the imports and helper functions above the function, and its header.
    text: a model's answer: the whole function, or what follows the docstring.

  Returns:
    The program, or None where the text has none.
  """
  name, prompt = entry_point(problem), problem.question
  program = extract_program(text, {name})
  if program is not None and re.search(_DEFINES.format(name), program, re.MULTILINE):
    # The imports and helpers of the prompt come first, so that the text's own win.
    return future_first(prompt[: prompt.rfind(f'def {name}(')] + program)
  body = extract_body(text)
  return program if body is None else prompt + body


def find_text(text: str) -> str | None:
  """The part of a text that is its answer, whatever the problem: a body, or a program."""
  is_body = answer_part(text)[0].lstrip('\n')[:1] in (' ', '\t')
  return extract_body(text) if is_body else extract_program(text)


def load_humaneval(
  data_path: str | os.PathLike[str],
  checker: programs.Checker,
  *,
  cache: str | os.PathLike[str] = '',
) -> base.Task:
  """HumanEval, graded by its own tests.

  Args:
    data_path: directory with humaneval/HumanEval.jsonl.gz, local or in a bucket; or 'download'.
    checker: runs programs; the task's `close` closes it.
    cache: folder for prepared data; '' takes the user's cache folder.

  Returns:
    A Task without training problems.

  Raises:
    ValueError: the file is missing, empty or broken (file and line are named).
  """
  rows = read_splits(catalogue.HUMANEVAL, data_path, cache)['test']
  problems = [base.Problem(row['id'], row['prompt'], _tests(row)) for row in rows]
  return programs.program_task(
    'humaneval',
    [],
    problems,
    prompt=humaneval_prompt,
    statement=humaneval_statement,
    checker=checker,
    find_program=complete_program,
    find_text=find_text,
  )


def _tests(row: Mapping) -> str:
  """The source that judges: the prompt's helper functions, the tests, and their call."""
  name = row['entry_point']
  return f'{helpers(row["prompt"], name)}\n{row["test"]}\ncheck({name})'
