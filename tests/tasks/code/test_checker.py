"""Grading programs: what passes and what does not, and that no verdict is lost."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from score_jax.tasks import base
from score_jax.tasks.code import checker, isolation

needs_sandbox = pytest.mark.usefixtures('enough')


def grade(grader, tests, program):
  (verdict,) = grader.grade([(tests, program)])
  return verdict.reason


@needs_sandbox
def test_a_helper_of_the_prompt_is_the_judges_own(grader):
  prompt = 'import math\ndef g(x):\n  return math.floor(x)\n\ndef f(x):\n  """Undoes g."""\n'
  tests = f'{checker.helpers(prompt, "f")}\nassert g(f(7)) == 7'
  assert grade(grader, tests, prompt + '  return x') == 'correct'
  assert grade(grader, tests, 'g = lambda x: 7\nf = lambda x: 0') == 'wrong'


@needs_sandbox
def test_verdicts_come_in_order_and_equal_programs_fare_equally(grader):
  programs = ['f = lambda: 1', 'f = lambda: 2', '', 'x' * 100_001, 'f =', 'raise KeyError']
  reasons = ['correct', 'wrong', 'no_answer', 'too_long', 'error: SyntaxError', 'error: KeyError']
  verdicts = grader.grade([('assert f() == 1', program) for program in programs] * 5)
  assert [verdict.reason for verdict in verdicts] == reasons * 5
  assert [verdict.reward for verdict in verdicts] == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0] * 5
  assert grader.grade([]) == []
  # The order of a set, and what random tests draw, are the same each time.
  program = 'import random\nf = lambda: str({str(i) for i in range(50)}) + str(random.random())'
  seen = 'import random\nassert f() + str(random.random()) == {!r}'
  guess = [grade(grader, seen.format(''), program) for _ in range(2)]
  assert guess == ['wrong', 'wrong']


def test_nothing_starts_before_the_first_program():
  grader = checker.CodeChecker()
  assert grader._pool._workers == []
  grader.close()


def test_faulty_tests_are_the_callers_mistake(grader):
  for tests in ('assert f( == 1', 'f(1)', 'assert True'):
    with pytest.raises(ValueError, match='item 1: the tests'):
      grader.grade([('assert f() == 1', 'f = 1'), (tests, 'f = 1')])


def test_limits_that_make_no_sense():
  with pytest.raises(ValueError, match='memory_bytes=1,000'):
    checker.CodeChecker(memory_bytes=1000)
  with pytest.raises(ValueError, match='num_workers'):
    checker.CodeChecker(num_workers=0)


def test_no_isolation_no_grading(monkeypatch):
  report = isolation.Report(('limits',), ('network',))
  assert str(report) == 'layers: limits; not held: files, processes, signals'
  monkeypatch.setattr(isolation, 'available', lambda: report)
  grader = checker.CodeChecker(num_workers=1)
  with pytest.raises(RuntimeError, match='not held: files, processes, signals.*allow_unsandboxed'):
    grader.grade([('assert f() == 1', 'f = lambda: 1')])
  assert grader._pool._workers == []
  allowed = checker.CodeChecker(num_workers=1, allow_unsandboxed=True)
  assert allowed.grade([('assert f() == 1', 'f = lambda: 1')]) == [base.Verdict(1.0, 'correct')]
  allowed.close()


def processes_of(grader):
  """(judge, zygote, [keepers and candidates]) of a checker with one worker."""
  (judge_pid,) = (worker.process.pid for worker in grader._pool._workers)
  zygote, *others = descendants(judge_pid)
  return judge_pid, zygote, others


def descendants(root):
  """Children first, then their children, ..."""
  found, parents = [], {root}
  while parents:
    parents = {pid for parent in parents for pid in children(parent)}
    found += sorted(parents)
  return found


def children(pid):
  try:
    return list(map(int, pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text().split()))
  except (FileNotFoundError, ProcessLookupError):
    return []


def is_alive(pid):
  try:
    return pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
  except (FileNotFoundError, ProcessLookupError):
    return False


@needs_sandbox
@pytest.mark.parametrize('victim', ['judge', 'zygote', 'keeper'])
def test_killing_any_of_them_in_the_middle_of_a_batch_loses_no_verdict(victim):
  grader = checker.CodeChecker(num_workers=1, timeout_s=30.0)
  items = [('assert f() == 1', 'import time\ntime.sleep(0.05)\nf = lambda: 1')] * 30
  items[7] = ('assert f() == 1', 'f = lambda: 2')
  verdicts, killed = [], []
  grader.grade(items[:1])
  thread = threading.Thread(target=lambda: verdicts.extend(grader.grade(items)))
  thread.start()
  for _ in range(2):
    time.sleep(0.3)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
      try:
        judge_pid, zygote, others = processes_of(grader)
        target = {'judge': judge_pid, 'zygote': zygote, 'keeper': (others or [None])[0]}[victim]
        if target is not None:
          os.kill(target, signal.SIGKILL)
          killed.append(target)
          break
      except (ValueError, IndexError, ProcessLookupError):
        pass  # between two processes
  thread.join(60)
  everything = processes_of(grader)
  grader.close()
  assert len(set(killed)) == 2
  assert [verdict.reason for verdict in verdicts] == ['correct'] * 7 + ['wrong'] + ['correct'] * 22
  deadline = time.monotonic() + 20
  while any(map(is_alive, everything[:2])) and time.monotonic() < deadline:
    time.sleep(0.05)
  assert not any(map(is_alive, everything[:2]))


@needs_sandbox
def test_all_of_them_end_when_the_trainer_is_killed():
  code = (
    'from score_jax.tasks.code import checker\n'
    'grader = checker.CodeChecker(num_workers=1, timeout_s=2.0)\n'
    'grader.grade([("assert f() == 1", "f = lambda: 1")])\n'
    'print("ready", flush=True)\n'
    'grader.grade([("assert f() == 1", "while True: pass")])\n'
  )
  with subprocess.Popen(
    [sys.executable, '-c', code],
    stdout=subprocess.PIPE,
    env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
  ) as trainer:
    assert trainer.stdout.readline() == b'ready\n'
    deadline = time.monotonic() + 20
    everything = []
    # judge, zygote, keeper, candidate
    while len(everything) < 4 and time.monotonic() < deadline:
      everything = descendants(trainer.pid)
    assert len(everything) == 4
    trainer.kill()
  while any(map(is_alive, everything)) and time.monotonic() < deadline:
    time.sleep(0.05)
  assert not any(map(is_alive, everything))
