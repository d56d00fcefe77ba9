"""What all tasks share: values, problems that are in both splits, and no jax."""

import dataclasses

import pytest

from score_jax.tasks import base


def _task(train, test):
  return base.Task(
    name='t',
    train=[base.Problem(i, q, '') for i, q in enumerate(train)],
    test=[base.Problem(i, q, '') for i, q in enumerate(test)],
    prompt=str,
    instruction='',
    grade=lambda problems, texts: [],
    final=lambda text: text,
    close=lambda: None,
  )


def test_check_disjoint_names_both_problems():
  task = _task(['What is  1+1?', 'b', 'b'], ['c', 'what is 1+1?\n', 'B'])
  found = [(test.id, train.id) for test, train in base.check_disjoint(task)]
  assert found == [(1, 0), (2, 1)]
  assert base.check_disjoint(_task(['z^4 + z^2'], ['z^4 - z^2'])) == []


def test_training_problems_that_are_evaluation_problems_are_left_out(caplog):
  task = _task(['a', 'B', 'c', ' b'], ['d', 'b'])
  less = base.without_overlap(task)
  assert [problem.id for problem in less.train] == [0, 2]
  assert less.test == task.test
  assert 'task t: 2 of 4 training problems are left out' in caplog.text
  assert base.without_overlap(less) is less
  # What makes two problems the same is the task's to say.
  by_letter = dataclasses.replace(_task(['a1', 'b1'], ['b2']), statement=lambda p: p.question[0])
  assert [problem.id for problem in base.without_overlap(by_letter).train] == [0]


def test_problems_that_stand_there_twice_are_counted_and_named(caplog):
  base.warn_of_repeats(_task(['a', 'b', 'ab'], ['b']))
  assert caplog.text == ''  # in two splits, which is for `check_disjoint`
  task = _task(['a', 'b', ' A', *'cdefghijklm', *'abcdefghijk'], ['d', 'e', 'D\n', 'd'])
  task.test[2] = dataclasses.replace(task.test[2], answer='7')
  base.warn_of_repeats(task)
  train, test = caplog.messages
  assert train == (
    'task t: 12 of 25 training problems have the text of an earlier one and count again: '
    f'ids {[2, *range(14, 23)]} and 2 more; 0 of them have another answer'
  )
  assert test == (
    'task t: 2 of 4 evaluation problems have the text of an earlier one and count again: '
    'ids [2, 3]; 1 of them have another answer: ids [2]'
  )


def test_values_are_frozen():
  with pytest.raises(dataclasses.FrozenInstanceError):
    base.Verdict(1.0, 'correct').reward = 0.0


IMPORTS = """
import importlib, pkgutil, sys
import score_jax.analysis
from score_jax.tasks import base, gsm8k, humaneval, math, mbpp_r, sums
from score_jax.tasks.workers import pool
modules = [m.name for m in pkgutil.iter_modules(score_jax.analysis.__path__, 'score_jax.analysis.')]
assert 'score_jax.analysis.statistics' in modules
for module in modules:
  importlib.import_module(module)
heavy = {'jax', 'sympy', 'tensorflow', 'tensorflow_datasets', 'array_record'}
print(sorted(heavy & set(sys.modules)))
"""
MAKES = """
sys.modules['tensorflow_datasets'] = sys.modules['array_record'] = None
from score_jax.core.config import default_config
from score_jax.setup.task import make_task
config = default_config()
config.task.name = 'sums'
config.task.num_train = config.task.num_test = 10
print(len(make_task(config).train))
"""


def test_tasks_and_analysis_import_no_jax_and_generated_tasks_no_tfds(run_python):
  """A grader starts fast, and a report counts without waiting for jax."""
  done = run_python('-W', 'error', '-c', IMPORTS + MAKES)
  assert (done.returncode, done.stdout) == (0, '[]\n10\n'), done.stderr
