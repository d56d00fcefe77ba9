"""The reference programs of MBPP and HumanEval pass, and fail when what they return is changed."""

import ast
import gzip
import json
import warnings

import pytest

from score_jax.tasks.code import checker, counting


def references(data_dir):
  """(name, tests, program) of MBPP, of its harder tests, and of HumanEval."""
  with open(data_dir / 'mbpp/mbpp.jsonl') as f:
    mbpp = [json.loads(line) for line in f]
  with gzip.open(data_dir / 'humaneval/HumanEval.jsonl.gz', 'rt') as f:
    human = [json.loads(line) for line in f]
  for row in mbpp:
    for kind in ('test_list', 'challenge_test_list'):
      if row[kind]:
        tests = '\n'.join([row['test_setup_code'], *row[kind]])
        yield f'MBPP/{row["task_id"]} {kind}', tests, row['code']
  for row in human:
    name = row['entry_point']
    given = checker.helpers(row['prompt'], name)
    program = row['prompt'] + row['canonical_solution']
    yield row['task_id'], f'{given}\n{row["test"]}\ncheck({name})', program


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


def check_references(grader, rows):
  verdicts = grader.grade([(tests, program) for _, tests, program in rows])
  pairs = zip(rows, verdicts, strict=True)
  assert not [(row[0], verdict.reason) for row, verdict in pairs if verdict.reason != 'correct']


def check_changed(grader, rows, change):
  items = []
  for name, tests, program in rows:
    changer = ChangeReturns(counting.prepare(tests).program_names, change)
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # some programs of MBPP write '\w'
      tree = ast.fix_missing_locations(changer.visit(ast.parse(program)))
    assert changer.num_changed, f'{name} returns nothing'
    items.append((tests, ast.unparse(tree)))
  pairs = zip(rows, grader.grade(items), strict=True)
  assert not [row[0] for row, verdict in pairs if verdict.reward]


CHANGES = ['({}, "changed")', '({}, None)[1]', '[{}]']


def test_a_sample_of_the_references_passes_and_fails_when_changed(grader, data_dir):
  rows = list(references(data_dir))
  own_classes = ('MBPP/367 test_list', 'MBPP/601 test_list', 'MBPP/927 test_list')
  chosen = rows[::40] + [row for row in rows if row[0] in own_classes]
  check_references(grader, chosen)
  check_changed(grader, chosen, CHANGES[0])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_reference_passes(grader, data_dir):
  rows = list(references(data_dir))
  assert len(rows) == 974 + 11 + 164
  check_references(grader, rows)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize('change', CHANGES)
def test_every_reference_fails_when_what_it_returns_is_changed(grader, data_dir, change):
  check_changed(grader, list(references(data_dir)), change)
