"""What counts as isolation: each layer taken away in turn, and what a program sees from inside."""

import socket
import subprocess
import sys

import pytest

from score_jax.tasks import base
from score_jax.tasks.code import checker, isolation, sandbox, wire

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='the layers are those of Linux')

# Runs the fork server without some of the layers.
ZYGOTE = """
import os, sys
from score_jax.tasks.code import landlock, namespaces, seccomp, zygote
def refuse(*_):
  raise OSError('taken away by the test')
if 'landlock' in sys.argv:
  landlock.abi = lambda libc: 0
if 'namespaces' in sys.argv:
  namespaces.enter_root = refuse
if 'seccomp' in sys.argv:
  seccomp.enter = refuse
zygote.main(int(sys.argv[1]), os.getppid(), 1 << 29, 5)
"""


def report_without(*missing):
  ours, theirs = socket.socketpair()
  with ours, theirs:
    process = subprocess.Popen(
      [sys.executable, '-c', ZYGOTE, str(theirs.fileno()), *missing],
      pass_fds=[theirs.fileno()],
      stderr=subprocess.DEVNULL,
      env={'PYTHONPATH': ':'.join(sys.path)},
    )
    theirs.close()
    ours.settimeout(60)
    report = isolation.Report(*map(tuple, wire.receive(ours.recv)))
  process.wait(60)
  return report


@pytest.fixture
def full():
  report = isolation.available()
  if set(report.layers) < {'limits', 'namespaces', 'capabilities', 'landlock', 'seccomp'}:
    pytest.skip(f'not every layer is here to be taken away: {report}')
  return report


def test_every_layer(full):
  assert full == report_without()
  assert full.is_enough
  assert str(full).endswith('not held: nothing')


@pytest.mark.parametrize(
  ('missing', 'is_enough', 'not_held'),
  [
    (['landlock'], True, set()),
    (['namespaces'], True, set()),
    (['landlock', 'namespaces'], False, {'files'}),
    (['seccomp'], False, {'network'}),
    (['landlock', 'namespaces', 'seccomp'], False, {'files', 'network', 'signals'}),
  ],
)
def test_without_some_layers(full, missing, is_enough, not_held):
  report = report_without(*missing)
  assert not set(missing) & set(report.layers)
  assert report.is_enough == is_enough
  assert not_held <= set(isolation.REQUIRED) - set(report.holds)


def test_the_probe_finds_out_that_nothing_holds(run_python, tmp_path):
  (tmp_path / 'file').write_text('seen')
  code = f'from score_jax.tasks.code import isolation; print(isolation.probe("{tmp_path}/file"))'
  done = run_python('-c', code)
  assert done.stdout.strip() == '[]', done.stderr


SEES = """
import os, sys
def names(): return sorted(os.listdir('/'))
def identity(): return os.getpid(), os.getppid(), len(os.environ), sys.argv, os.getcwd()
def folders():
  library = os.path.dirname(os.__file__)
  found = []
  for top, below, files in os.walk('/'):
    if top == library:
      below[:] = [name for name in below if name.endswith('-packages')]
      files.clear()
    found += [os.path.join(top, name) for name in files]
  return found
def descriptors():
  found = []
  for number in range(64):
    try:
      os.fstat(number)
      found.append(number)
    except OSError:
      pass
  return found
"""


def test_what_a_program_sees(full):
  library = isolation._library_folders()[0]
  tests = f"""
assert names() == sorted({{'tmp', {library.split('/')[1]!r}}})
assert identity() == (1, 0, 0, [''], '/tmp')
assert folders() == []
assert descriptors() == [0, 1, 2, 3]
"""
  grader = checker.CodeChecker(num_workers=1, timeout_s=20.0)
  (verdict,) = grader.grade([(tests, SEES)])
  grader.close()
  assert verdict.reason == 'correct'


def test_a_sandbox_that_does_not_start_is_no_programs_fault(monkeypatch):
  def start_zygote(connection, memory_bytes, cpu_s, log):
    process = subprocess.Popen([sys.executable, '-c', 'exit("last words")'], stderr=log)
    process.wait()
    return process

  monkeypatch.setattr(isolation, 'start_zygote', start_zygote)
  with pytest.raises(RuntimeError, match='(?s)the sandbox does not start.*last words') as raised:
    sandbox.Sandbox(1 << 28, 5, allow_unsandboxed=True).warm()
  # What a worker makes of that, the parent raises again.
  reason = f'error: RuntimeError: {raised.value}'[:200]
  grader = checker.CodeChecker(allow_unsandboxed=True)
  monkeypatch.setattr(grader._pool, 'grade', lambda items: [base.Verdict(0.0, reason)])
  with pytest.raises(RuntimeError, match='^the sandbox does not start'):
    grader.grade([('assert f() == 1', 'f = lambda: 1')])


def test_a_machine_that_confines_nothing_is_refused_by_the_judge_too(monkeypatch):
  monkeypatch.setattr(isolation.Report, 'is_enough', False)
  with pytest.raises(RuntimeError, match='the sandbox confines nothing: layers: limits'):
    sandbox.Sandbox(1 << 28, 5, allow_unsandboxed=False).warm()
  room = sandbox.Sandbox(1 << 28, 5, allow_unsandboxed=True)
  room.warm()
  room.close()
