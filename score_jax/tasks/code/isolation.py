"""What stands between a candidate and the machine, laid on in the order that it must be.

    prepare()   zygote, once: a root directory of its own, where the machine allows
    enclose()   keeper, per candidate: a process namespace of its own and an empty /tmp
    confine()   candidate, before it reads its program: limits, capabilities, Landlock, seccomp

Each layer is used where the machine has it. What counts is not which layers were laid on but what
holds, and that is tried from inside (`probe`): a file outside does not open and cannot be made, no
process starts, no socket is made, no other process is reached. All four, or it is no isolation.
docs/sandbox.md lists what holds where.
"""

import ctypes
import dataclasses
import functools
import os
import resource
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile

from score_jax.tasks.code import landlock, namespaces, seccomp, wire

# Exit status of a candidate that had no memory left to say so.
OUT_OF_MEMORY = 77
REQUIRED = ('files', 'processes', 'network', 'signals')

_LINUX = sys.platform == 'linux'
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_MAX_FILE_BYTES = 16 << 20
_MAX_OPEN_FILES = 64


@dataclasses.dataclass(frozen=True)
class Report:
  """What a machine gives.

  Attributes:
    layers: the mechanisms in use, among 'limits', 'namespaces', 'capabilities', 'landlock' and
      'seccomp'.
    holds: of REQUIRED, what a confined process could not get round when it tried.
  """

  layers: tuple[str, ...]
  holds: tuple[str, ...]

  @property
  def is_enough(self) -> bool:
    """Whether an untrusted program may run: everything REQUIRED holds."""
    return set(REQUIRED) <= set(self.holds)

  def __str__(self) -> str:
    missing = ', '.join(name for name in REQUIRED if name not in self.holds)
    return f'layers: {", ".join(self.layers)}; not held: {missing or "nothing"}'


@functools.cache
def available() -> Report:
  """Finds out, in a process of its own, how far this machine can confine a program.

  Returns:
    A Report; the answer is kept for the life of this process.

  Raises:
    RuntimeError: the process that tries does not start.
  """
  ours, theirs = socket.socketpair()
  with ours, theirs, tempfile.TemporaryFile() as log:
    process = start_zygote(theirs, 1 << 29, 5, log)
    theirs.close()
    try:
      ours.settimeout(60)
      return Report(*map(tuple, wire.receive(ours.recv)))
    except (OSError, EOFError, ValueError) as error:
      process.kill()
      log.seek(0)
      words = log.read()[-2000:].decode('utf-8', 'replace')
      raise RuntimeError(f'the sandbox does not start: {error!r}. It said:\n{words}') from error
    finally:
      ours.close()
      process.wait()


def start_zygote(connection: socket.socket, memory_bytes: int, cpu_s: int, log) -> subprocess.Popen:
  """Starts the fork server (zygote.py) with an empty environment and the standard library alone.

  Args:
    connection: the zygote's end; the caller closes its copy.
    memory_bytes: address space of each candidate.
    cpu_s: seconds of processor time of each candidate.
    log: file for what the zygote itself prints.

  Returns:
    The process. It ends when the other end of the connection is closed.
  """
  package = os.path.abspath(__file__)
  for _ in range(4):  # .../score_jax/tasks/code/isolation.py
    package = os.path.dirname(package)
  return subprocess.Popen(
    # The base interpreter, without site: no installed package is on its path.
    [
      getattr(sys, '_base_executable', sys.executable),
      *('-S', '-P', '-B', '-X', 'utf8', '-m', 'score_jax.tasks.code.zygote'),
      *map(str, (connection.fileno(), os.getpid(), memory_bytes, cpu_s)),
    ],
    pass_fds=[connection.fileno()],
    stdin=subprocess.DEVNULL,
    stdout=subprocess.DEVNULL,
    stderr=log,
    cwd='/',
    # Fixed hashes: the order of a set, and so a verdict, is the same in every run.
    env={'PYTHONPATH': package, 'PYTHONHASHSEED': '0'},
  )


def die_with_parent() -> None:
  """Has the kernel kill this process when the one that started it ends (Linux)."""
  if _LINUX:
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Confinement:
  """The layers of one zygote and its candidates.

  Attributes:
    memory_bytes: address space of a candidate.
    cpu_s: seconds of processor time of a candidate.
    layers: which layers are in use.
  """

  def __init__(self, memory_bytes: int, cpu_s: int):
    self.memory_bytes = memory_bytes
    self.cpu_s = cpu_s
    self.layers: list[str] = ['limits']
    self._ruleset: int | None = None

  def prepare(self) -> None:
    """In the zygote: takes the layers that last, and finds out which of the others there are."""
    if not _LINUX:
      return
    libc = _libc()
    folders = _library_folders()
    if _succeeds(lambda: (namespaces.enter_root(libc, folders), namespaces.enter_process(libc))):
      namespaces.enter_root(libc, folders)
      self.layers.append('namespaces')
    elif landlock.abi(libc) >= landlock.MIN_ABI:
      # Made here, once: one rule for each entry, since what lies beneath a path cannot be left out.
      self._ruleset = landlock.make_ruleset(libc, _library_entries(folders))
    self.layers.append('capabilities')
    if landlock.abi(libc) >= landlock.MIN_ABI:
      self.layers.append('landlock')
    if _succeeds(lambda: (self._no_new_privileges(), seccomp.enter(libc))):
      self.layers.append('seccomp')

  def enclose(self) -> None:
    """In the keeper, before it starts the candidate."""
    if 'namespaces' in self.layers:
      namespaces.enter_process(_libc())

  def confine(self) -> None:
    """In the candidate: everything from here on is done by what the program may do too."""
    os.setsid()
    os.chdir('/tmp' if 'namespaces' in self.layers else '/')
    for name, limit in (
      ('CORE', 0),
      ('FSIZE', _MAX_FILE_BYTES),
      ('NOFILE', _MAX_OPEN_FILES),
      ('CPU', self.cpu_s),
      ('NPROC', 1),
      ('MSGQUEUE', 0),
      ('MEMLOCK', 0),
      ('AS', self.memory_bytes),
    ):
      which = getattr(resource, f'RLIMIT_{name}', None)
      if which is not None and (_LINUX or name != 'AS'):
        hard = resource.getrlimit(which)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(which, (limit, limit))
    if not _LINUX:
      return
    libc = _libc()
    self._no_new_privileges()
    _drop_capabilities(libc)
    if 'landlock' in self.layers:
      ruleset = self._ruleset
      if ruleset is None:
        ruleset = landlock.make_ruleset(
          libc, {'/': landlock.READ, '/tmp': landlock.READ | landlock.WRITE}
        )
      landlock.enter(libc, ruleset)
      os.close(ruleset)
    if 'seccomp' in self.layers:
      seccomp.enter(libc)

  def _no_new_privileges(self) -> None:
    if _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
      raise OSError(ctypes.get_errno(), 'prctl(PR_SET_NO_NEW_PRIVS) was refused')


def probe(outside: str) -> list[str]:
  """Tries, in a confined process, to get out.

  Args:
    outside: a file that exists outside, is readable, and must not be.

  Returns:
    Those of REQUIRED that it could not get round.
  """
  attempts = {
    'files': (
      lambda: os.close(os.open(outside, os.O_RDONLY)),
      lambda: os.close(os.open('/etc/passwd', os.O_RDONLY)),
      lambda: os.listdir('/proc/self'),
      lambda: _make_file(os.path.dirname(outside)),
      lambda: _make_file('/var/tmp'),
      lambda: _make_file(sysconfig.get_path('stdlib')),
    ),
    'processes': (_start_process, lambda: os.posix_spawn('/bin/true', ['true'], {})),
    'network': (
      lambda: socket.socket().close(),
      lambda: socket.socket(socket.AF_UNIX).close(),
    ),
    'signals': (
      lambda: os.kill(os.getppid(), 0),
      lambda: os.kill(-1, 0),
      lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 19),
    ),
  }
  return [name for name, tries in attempts.items() if not any(map(_is_possible, tries))]


def _is_possible(attempt) -> bool:
  try:
    attempt()
  except OSError:
    return False
  return True


def _make_file(folder: str) -> None:
  path = f'{folder}/.score_jax_probe_{os.getpid()}'
  os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
  os.unlink(path)


def _start_process() -> None:
  pid = os.fork()
  if pid == 0:
    os._exit(0)
  os.waitpid(pid, 0)


def _succeeds(action) -> bool:
  """Whether an action that cannot be taken back would succeed; it is tried in a child."""
  pid = os.fork()
  if pid == 0:
    status = 1
    try:
      action()
      status = 0
    except OSError as error:
      print(f'not available here: {error}', file=sys.stderr, flush=True)
    finally:
      os._exit(status)
  return os.waitpid(pid, 0)[1] == 0


@functools.cache
def _libc() -> ctypes.CDLL:
  return ctypes.CDLL(None, use_errno=True)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
  """Gives up every capability (version 3 of the kernel's structure, 64 bits in two halves)."""
  header = (ctypes.c_uint32 * 2)(0x20080522, 0)
  if libc.capset(header, (ctypes.c_uint32 * 6)()):
    raise OSError(ctypes.get_errno(), 'capset was refused')


def _library_folders() -> list[str]:
  """The standard library's directories, the outer ones only."""
  paths = {sysconfig.get_path(name) for name in ('stdlib', 'platstdlib')}
  return [path for path in sorted(paths) if os.path.isdir(path)]


def _library_entries(folders: list[str]) -> dict[str, int]:
  """What is in those directories, without installed packages: path -> rights for Landlock.

  The directories themselves can be listed, which Python's import needs.
  """
  entries = {}
  for folder in folders:
    entries[folder] = 1 << 3  # READ_DIR
    for name in os.listdir(folder):
      if name not in namespaces.NOT_STANDARD:
        entries[f'{folder}/{name}'] = landlock.READ
  return entries
