"""Programs that try to be rewarded without doing the work, and what they leave behind: nothing.

The programs are in hostile_programs.txt, named after what each tries.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import pytest
from makers import TESTS as HERE

from score_jax.tasks.code import checker, isolation

TESTS = 'assert double(3) == 6\nassert double(-20) == -40\nassert double([1]) == [1, 1]\n'
GOOD = 'def double(x):\n  return x + x\n'
# What a file of text cannot hold, or should not.
STANDS_FOR = {
  'OUTSIDE': repr(str(HERE / 'hostile_programs.txt')),
  '<NUL>': '\0',
  '<SURROGATE>': '\ud800',
  '<BRACKETS>': '[' * 50_000,
  '<BLOCKS>': ''.join(' ' * i + 'if 1:\n' for i in range(150)),
  '<OPERATORS>': '-' * 90_000,
  '<MEGABYTE>': 'x' * 1_000_000,
}

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')


def read_programs() -> dict[str, tuple[set[str], str]]:
  """Name -> (reasons that will do, source)."""
  text = (HERE / 'hostile_programs.txt').read_text()
  programs = {}
  for section in text.split('==== ')[1:]:
    title, _, source = section.partition('\n')
    name, _, reasons = title.partition(': ')
    for word, meaning in STANDS_FOR.items():
      source = source.replace(word, meaning)
    assert name not in programs, f'{name} is there twice'
    programs[name] = set(reasons.split('|')), source
  return programs


PROGRAMS = read_programs()


def stat_of(pid: int) -> list[str]:
  """State, parent, process group, session, ... of a process."""
  return pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()


def descendants(root: int) -> dict[int, int]:
  """Process -> parent, of all that live below a process."""
  parents = {}
  for entry in pathlib.Path('/proc').iterdir():
    if entry.name.isdigit():
      try:
        state, parent = stat_of(int(entry.name))[:2]
      except (FileNotFoundError, ProcessLookupError):
        continue
      if state != 'Z':
        parents[int(entry.name)] = int(parent)
  below: dict[int, int] = {}
  new = {root}
  while new:
    new = {pid for pid, parent in parents.items() if parent in new}
    below |= {pid: parents[pid] for pid in new}
  return below


def sandboxes() -> set[int]:
  """All zygotes and what was forked from them, of every judge of this process, wherever they are.

  A fork keeps the command line, which names the judge.
  """
  judges = {str(pid) for pid, parent in descendants(os.getpid()).items() if parent == os.getpid()}
  found = set()
  for entry in pathlib.Path('/proc').iterdir():
    if entry.name.isdigit():
      try:
        words = (entry / 'cmdline').read_text().split('\0')
      except (FileNotFoundError, ProcessLookupError):
        continue
      if 'score_jax.tasks.code.zygote' in words and judges & set(words):
        found.add(int(entry.name))
  return found


def rss_mib(pid: int) -> float:
  """Resident memory of a process."""
  status = pathlib.Path(f'/proc/{pid}/status').read_text()
  return int(re.search(r'VmRSS:\s+(\d+)', status).group(1)) / 1024


def open_files(pid: int) -> list[str]:
  """What the descriptors of a process refer to, without the numbers of sockets and pipes."""
  names = []
  for entry in pathlib.Path(f'/proc/{pid}/fd').iterdir():
    try:
      names.append(re.sub(r'\d+', '', os.readlink(entry)))
    except FileNotFoundError:  # the descriptor that lists this folder
      continue
  return sorted(names)


@pytest.fixture
def make_checker():
  report = isolation.available()
  if not report.is_enough:
    pytest.skip(f'this machine confines no program: {report}')
  checkers = []

  def make(**kwargs):
    checkers.append(checker.CodeChecker(**{'memory_bytes': 1 << 28, 'timeout_s': 2.0, **kwargs}))
    return checkers[-1]

  yield make
  for one in checkers:
    one.close()


def complaints(names, verdicts):
  """What the verdicts on the named programs should not be."""
  return [
    f'{name}: {verdict.reason!r} with reward {verdict.reward}, not {sorted(PROGRAMS[name][0])}'
    for name, verdict in zip(names, verdicts, strict=True)
    if verdict.reward != 0 or verdict.reason not in PROGRAMS[name][0]
  ]


def test_there_are_many_programs():
  assert len(PROGRAMS) >= 100


def test_none_is_rewarded_and_nothing_of_it_is_left(make_checker):
  grader = make_checker()
  assert [v.reason for v in grader.grade([(TESTS, GOOD)] * 4)] == ['correct'] * 4
  places = [HERE, HERE.parent, pathlib.Path.home(), *map(pathlib.Path, ('/tmp', '/var/tmp'))]
  memory, files = rss_mib(os.getpid()), open_files(os.getpid())
  names = list(PROGRAMS)
  # After each hostile program comes a good one, which must be graded as ever.
  items = [item for name in names for item in ((TESTS, PROGRAMS[name][1]), (TESTS, GOOD))]
  verdicts = grader.grade(items)
  assert not complaints(names, verdicts[::2])
  assert [v.reason for v in verdicts[1::2]] == ['correct'] * len(names)

  assert not [path for place in places for path in place.glob('*score_jax_was_here*')]
  assert 'score_jax_was_here' not in pathlib.Path('/proc/net/unix').read_text()
  assert open_files(os.getpid()) == files
  assert rss_mib(os.getpid()) < memory + 20
  # Two judges, a zygote each, and nobody else, once the last keeper has gone.
  deadline = time.monotonic() + 20
  below = descendants(os.getpid())
  while len(below) > 4 and time.monotonic() < deadline:
    time.sleep(0.05)
    below = descendants(os.getpid())
  judges = [pid for pid, parent in below.items() if parent == os.getpid()]
  zygotes = [pid for pid, parent in below.items() if parent in judges]
  assert (len(judges), len(zygotes), len(below)) == (2, 2, 4)
  # Nor did anyone get away from under them.
  assert sandboxes() <= set(below)
  grader.close()
  assert not descendants(os.getpid())


def test_each_keeps_to_its_limits(make_checker):
  grader = make_checker(num_workers=1, timeout_s=1.0)
  grader.grade([(TESTS, GOOD)])
  for name in ('never_returns', 'sleeps_with_every_signal_blocked', 'hangs_inside_one_instruction'):
    start = time.monotonic()
    assert not complaints([name], grader.grade([(TESTS, PROGRAMS[name][1])]))
    assert 0.9 < time.monotonic() - start < 10.0
  (judge,) = (pid for pid, parent in descendants(os.getpid()).items() if parent == os.getpid())
  before, files = rss_mib(judge), open_files(judge)
  names = [name for name in PROGRAMS if name.startswith(('returns_', 'eats_', 'announces_'))]
  assert not complaints(names, grader.grade([(TESTS, PROGRAMS[name][1]) for name in names]))
  # The judge holds no more than before, memory or descriptors, if it is still the same process.
  if judge in descendants(os.getpid()):
    assert rss_mib(judge) < before + 64
    assert open_files(judge) == files


# Root without a single capability, where no more user namespaces may be made.
WITHOUT_NAMESPACES = (
  'echo 0 > /proc/sys/user/max_user_namespaces && '
  'exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"'
)


def grade_without_namespaces() -> None:
  """Runs in a process of its own; prints what is wrong, then how a good program fares."""
  report = isolation.available()
  assert 'namespaces' not in report.layers, report
  if not report.is_enough:
    raise SystemExit(f'not enough: {report}')
  names = [name for name, (reasons, _) in PROGRAMS.items() if 'timeout' not in reasons]
  grader = checker.CodeChecker(memory_bytes=1 << 28)
  verdicts = grader.grade([(TESTS, PROGRAMS[name][1]) for name in names])
  print(complaints(names, verdicts), grader.grade([(TESTS, GOOD)])[0].reason, report)
  grader.close()


def test_without_namespaces_the_rest_holds():
  """As in a container without privileges: Landlock and the filter of system calls must do."""
  if not (shutil.which('unshare') and shutil.which('setpriv')):
    pytest.skip('needs unshare and setpriv of util-linux')
  python = [sys.executable, '-c', 'import test_hostile as t; t.grade_without_namespaces()']
  done = subprocess.run(
    ['unshare', '--user', '--map-root-user', 'sh', '-c', WITHOUT_NAMESPACES, 'sh', *python],
    env=os.environ | {'PYTHONPATH': os.pathsep.join([os.path.dirname(__file__), *sys.path])},
    capture_output=True,
    text=True,
    timeout=240,
  )
  if 'unshare' in done.stderr or 'setpriv' in done.stderr or 'sh:' in done.stderr:
    pytest.skip(f'no namespaces to leave behind on this machine: {done.stderr.strip()}')
  if 'not enough' in done.stderr:
    pytest.skip(f'without namespaces this machine confines nothing: {done.stderr.strip()}')
  assert done.stdout.startswith('[] correct'), done.stdout + done.stderr
