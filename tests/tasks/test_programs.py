"""Tasks whose answers are programs: the instruction, what is run, and what counts as a change."""

import pytest

from score_jax.tasks import base, mbpp, programs


class Recorder:
  """A checker that passes what says so, and remembers what it was asked."""

  def __init__(self):
    self.items = []
    self.is_closed = False

  def grade(self, items):
    self.items += items
    return [base.Verdict(float('pass' in p), 'right' if 'pass' in p else 'wrong') for _, p in items]

  def close(self):
    self.is_closed = True


def problems(count):
  return [base.Problem(i, f'q{i}', f'assert f() == {i}') for i in range(count)]


def test_the_instruction_is_the_papers():
  assert programs.CODE_INSTRUCTION == (
    '# There might be an error in the code above because of lack of understanding of the question. '
    'Please correct the error, if any, and rewrite the solution. Only output the final correct '
    'Python program!'
  )


def test_only_programs_are_run_and_verdicts_stay_in_order():
  checker = Recorder()
  task = mbpp.mbpp_task('mbpp', problems(4), [], '', checker)
  texts = ['def f():\n  return 0', 'I do not know.', '[BEGIN]\npass\n[DONE]\nmore', '']
  assert [v.reason for v in task.grade(task.train, texts)] == [
    'wrong',
    'no_answer',
    'right',
    'no_answer',
  ]
  assert [tests for tests, _ in checker.items] == ['assert f() == 0', 'assert f() == 2']
  assert checker.items[1][1].strip() == 'pass'
  assert task.grade([], []) == []
  with pytest.raises(ValueError, match='4 problems but 1 texts'):
    task.grade(task.train, ['x'])
  task.close()
  assert checker.is_closed


def test_an_answer_has_changed_if_its_program_has():
  task = mbpp.mbpp_task('mbpp', [], [], '', Recorder())
  same = [
    'def f():\n  return 1\n[DONE]',
    'Here:\n```python\ndef f():\r\n\n  return 1   \n```\nBye.',
  ]
  assert {task.final(text) for text in same} == {'def f():\n  return 1'}
  assert task.final('def f():\n return 1') != 'def f():\n  return 1'
  assert task.final('No idea.') is None
  assert programs.normalise_program('') == ''


def test_the_longest_texts_take_no_time():
  for piece in (' ', '\n', '    x\n', 'def f\n', '```\n'):
    programs.normalise_program(piece * (300_000 // len(piece)))
