"""References of MBPP and HumanEval in every form of answer_forms.py, and a wrong program in each.

    python tests/wrapped_references.py --data DIR

prints the table of docs/tasks.md.
"""

import argparse
import ast
import dataclasses
import gzip
import json
import pathlib
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from answer_forms import BODIES, FORMS, Answer

from score_jax.tasks import base, humaneval, programs
from score_jax.tasks.code import checker, counting


@dataclasses.dataclass(frozen=True)
class Wrapped:
  """A text that holds a program, and the program that is run for it.

  Attributes:
    form: name of the form.
    is_right: whether the program is the reference, or one that returns something else.
    tests: of its problem.
    text: the answer.
    program: what is run for it, or None.
    is_whole: whether that is the program that was wrapped, up to empty lines and spaces.
  """

  form: str
  is_right: bool
  tests: str
  text: str
  program: str | None
  is_whole: bool


def wrap(rows) -> Iterator[Wrapped]:
  """Every reference in every form, and a wrong program in each."""
  for row in rows:
    tests, question = row.tests, row.prompt
    program = row.program.replace('\r\n', '\n')
    names = frozenset(counting.prepare(tests).program_names)
    pairs = [(True, program), (False, wrong_program(row))]
    kinds = [(FORMS, pairs)]
    if question:
      body = program.removeprefix(question).rstrip()
      kinds.append((BODIES, [(True, body), (False, '    return None')]))
    problem = base.Problem(0, question, tests)
    find = humaneval.complete_program if question else programs.find_program
    above = question[: question.rfind(f'def {min(names)}(')] if question else ''
    for forms, ((_, right), (_, wrong)) in kinds:
      for is_right, one, other in ((True, right, wrong), (False, wrong, right)):
        for form, make in forms.items():
          text = make(Answer(one, names, other))
          found = find(problem, text)
          whole = (question if forms is BODIES else above) + one
          is_whole = found is not None and _norm(found) == _norm(whole)
          yield Wrapped(form, is_right, tests, text, found, is_whole)


def grade(grader, wrapped) -> dict[str, tuple[int, int, int]]:
  """Grades texts, each different program once.

  Returns:
    By form: texts of right programs, those of them graded right, wrong ones graded right.
  """
  wrapped = list(wrapped)
  key = {one: (one.tests, _norm(one.program)) for one in wrapped if one.program is not None}
  items = {key[one]: (one.tests, one.program) for one in wrapped if one in key}
  verdicts = dict(zip(items, grader.grade(list(items.values())), strict=True))
  counts = {}
  for one in wrapped:
    is_passed = one in key and verdicts[key[one]].reward == 1
    total, right, wrong = counts.get(one.form, (0, 0, 0))
    counts[one.form] = (
      total + one.is_right,
      right + (is_passed and one.is_right),
      wrong + (is_passed and not one.is_right),
    )
  return counts


def _norm(program: str) -> str:
  return programs.normalise_program(program)


class Reference(NamedTuple):
  """A program that passes, its tests, and HumanEval's prompt, which it begins with."""

  name: str
  tests: str
  program: str
  prompt: str = ''


def references(data_dir) -> Iterator[Reference]:
  """The references of MBPP, those with its harder tests, and those of HumanEval."""
  with open(data_dir / 'mbpp/mbpp.jsonl') as f:
    mbpp = [json.loads(line) for line in f]
  with gzip.open(data_dir / 'humaneval/HumanEval.jsonl.gz', 'rt') as f:
    human = [json.loads(line) for line in f]
  for row in mbpp:
    for kind in ('test_list', 'challenge_test_list'):
      if row[kind]:
        tests = '\n'.join([row['test_setup_code'], *row[kind]])
        yield Reference(f'MBPP/{row["task_id"]} {kind}', tests, row['code'])
  for row in human:
    name = row['entry_point']
    given = checker.helpers(row['prompt'], name)
    program = row['prompt'] + row['canonical_solution']
    tests = f'{given}\n{row["test"]}\ncheck({name})'
    yield Reference(row['task_id'], tests, program, row['prompt'])


class ChangeReturns(ast.NodeTransformer):
  """Changes what the functions that the tests call return; what they define within stays."""

  def __init__(self, names, change):
    self.names, self.change = names, change
    self.is_inside = False
    self.num_changed = 0

  def visit_FunctionDef(self, node):
    if not self.is_inside and node.name in self.names:
      self.is_inside = True
      self.generic_visit(node)
      self.is_inside = False
    return node

  def visit_ClassDef(self, node):
    return node

  def visit_Lambda(self, node):
    return node

  def visit_Return(self, node):
    if self.is_inside:
      self.num_changed += 1
      node.value = ast.parse(self.change.format(ast.unparse(node.value or ast.Constant(None))))
      node.value = node.value.body[0].value
    return node


def wrong_program(row, change='({}, "changed")'):
  """A program that returns something else; of a problem's own classes, the rest is as it was."""
  changer = ChangeReturns(counting.prepare(row.tests).program_names, change)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # some programs of MBPP write '\w'
    tree = ast.fix_missing_locations(changer.visit(ast.parse(row.program)))
  assert changer.num_changed, f'{row.name} returns nothing'
  return ast.unparse(tree)


def main() -> None:
  """Grades all references in all forms and prints a table; takes some minutes."""
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument('--data', required=True, type=pathlib.Path)
  parser.add_argument('--every', type=int, default=1)
  flags = parser.parse_args()
  rows = list(references(flags.data))[:: flags.every]
  grader = checker.CodeChecker(timeout_s=20.0)
  counts = grade(grader, wrap(rows))
  grader.close()
  print('| form | right programs | graded right | wrong programs graded right |\n|---|---|---|---|')
  for form, (total, right, wrong) in counts.items():
    print(f'| {form} | {total:,} | {right:,} | {wrong} |')
  total, right, wrong = (sum(count[i] for count in counts.values()) for i in range(3))
  print(f'| **all** | {total:,} | {right:,} ({right / total:.3%}) | {wrong} |')


if __name__ == '__main__':
  main()
