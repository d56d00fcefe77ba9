"""What counts as isolation: each layer taken away in turn, and what a program sees from inside."""

import socket
import subprocess
import sys

import pytest

from score_jax.tasks.code import checker, isolation, wire

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='the layers are those of Linux')


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
