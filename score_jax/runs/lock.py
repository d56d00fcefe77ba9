"""One writer per folder: a lock with a name on it, free again as soon as its holder is gone.

    WORKDIR/.writer.lock    {"host": ..., "pid": ..., "since": ..., "command": ..., "beat": ...}

It is there while a program writes to the folder. Who is gone is told by what can tell it:

- the kernel: `flock`, on a disk of this machine and where a network's file system passes it on. It
  goes with its process, so a start after SIGKILL goes on at once;
- the process table, where a folder knows no locks (a bucket): number and start of a process of this
  very machine, since its number alone may be another's by now;
- signs of life, for a holder on another host: it writes its `beat` every `BEAT_S`, and counts as
  gone when that stays the same for `LOST_BEATS` of them. No two clocks are compared.

A bucket cannot make a file only where there is none, so of two starts within `_SETTLE_S` both may
think themselves alone; the first beat of the one whose file was replaced ends it. A folder is a
process's: what it locks again within is the same lock.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator

import jax
from etils import epath
from jax.experimental import multihost_utils

from score_jax.core.storage import writing
from score_jax.runs.files import absolute, check_writable
from score_jax.runs.stored import DIRECTORY, committed_steps
from score_jax.runs.watchdog import BEAT_S, LOST_BEATS, STATUS

LOCK_FILE = '.writer.lock'
_SETTLE_S = 1.0  # until what another start wrote to a bucket is seen
# Folders that this process writes to, the innermost last, and the locks that it has of them.
_held: dict[str, '_Lock | None'] = {}


class FolderInUseError(ValueError):
  """Another program writes to the folder; the message names both."""


@dataclasses.dataclass(frozen=True)
class Writer:
  """A process that writes to a folder.

  Attributes:
    host: name of its machine.
    pid: its number there.
    machine: boot and process namespace that the number belongs to.
    started: what tells it from a later process of the same number; '' where that is unknown.
    since: when it locked the folder, by its own clock, UTC.
    command: what was called.
    beat: its latest sign of life, nanoseconds of its own clock; compared with itself only.
  """

  host: str
  pid: int
  machine: str
  started: str
  since: str
  command: str
  beat: int

  @classmethod
  def this(cls) -> 'Writer':
    """This process."""
    return cls(
      socket.gethostname(),
      os.getpid(),
      _machine(),
      _started(os.getpid()),
      datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
      shlex.join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]])[:300],
      time.time_ns(),
    )

  def __str__(self) -> str:
    return f'process {self.pid} on {self.host}'


def _machine() -> str:
  try:
    boot = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    return f'{boot} {os.readlink("/proc/self/ns/pid")}'
  except OSError:  # not Linux
    return socket.gethostname()


def _started(pid: int) -> str:
  """When a process of this machine began, in ticks since boot; '' of one that has ended."""
  try:
    state, *fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
  except OSError:
    return ''
  return '' if state in 'ZX' else fields[18]  # Z: it ended, and nobody has asked how


@contextlib.contextmanager
def one_writer(folder: epath.PathLike, patience_s: float = 0.0) -> Iterator[None]:
  """Keeps other programs from writing to a folder while the block lasts.

  Of the processes of one run, which all call this alike, the first one holds the lock.

  Args:
    folder: local or in a bucket; made where it does not exist.
    patience_s: [seconds] to wait for a holder that is about to end, such as one that saves.

  Raises:
    FolderInUseError: on all processes of the run, naming the holder and who asks.
    StorageError: if the folder cannot be written to.
  """
  folder = absolute(folder)
  if str(folder) in _held:
    yield
    return
  _held[str(folder)] = lock = _take_for_all(folder, patience_s)
  try:
    yield
  except BaseException as error:
    if not getattr(error, '__notes__', None):  # an inner folder knows better
      error.add_note(what_is_kept(folder))
    raise
  finally:
    del _held[str(folder)]
    if lock is not None:
      lock.release()


def what_is_kept(folder: epath.PathLike | None = None) -> str:
  """Says where a program will go on that was ended.

  Args:
    folder: that it writes to; by default the innermost one that this process has locked.
  """
  if folder is None:
    if not _held:
      return 'nothing was to be kept'
    folder = list(_held)[-1]
  steps = committed_steps(epath.Path(folder) / DIRECTORY)
  if steps:
    return f'step {steps[-1]} is kept in {folder}; the same command goes on from it'
  return f'no step is kept in {folder}; the same command does again what is not finished there'


def _forget() -> None:
  """In a fork: the folders are its parent's, and free when that one ends."""
  for lock in _held.values():
    if lock is not None:
      lock.close_file()
  _held.clear()


if hasattr(os, 'register_at_fork'):
  os.register_at_fork(after_in_child=_forget)


def _take_for_all(folder: epath.Path, patience_s: float) -> '_Lock | None':
  # Not by the number of processes, which would take the accelerator: a pipeline leaves that alone.
  if not jax.distributed.is_initialized():
    return _Lock(folder, patience_s)
  lock, refusal = None, None
  if jax.process_index() == 0:
    try:
      lock = _Lock(folder, patience_s)
    except FolderInUseError as error:
      refusal = error
    except (OSError, ValueError) as error:  # told by all once they compare what they see of it
      print(f'{folder} cannot be locked: {error}', file=sys.stderr)
  if multihost_utils.broadcast_one_to_all(refusal is not None):
    raise refusal or FolderInUseError(f'{folder} is in use, see what process 0 says')
  return lock


class _Lock:
  """The lock of one folder, held by this process until `release`."""

  def __init__(self, folder: epath.Path, patience_s: float):
    self._folder = folder
    self._path = folder / LOCK_FILE
    self._handle: int | None = None
    self._is_new, self._me = not folder.exists(), Writer.this()
    check_writable(folder)
    with writing(self._path):
      folder.mkdir(parents=True, exist_ok=True)
    deadline_s = time.monotonic() + patience_s
    while (holder := self._try()) is not None:
      if time.monotonic() > deadline_s:
        self.close_file()
        raise FolderInUseError(
          f'{folder} is being written by {holder} since {holder.since} ({holder.command}); this is '
          f'{self._me}. Wait for its end or end it, or choose another --workdir'
        )
      time.sleep(0.5)
    self._is_over = threading.Event()
    self._thread = threading.Thread(target=self._beat, name='writer lock', daemon=True)
    self._thread.start()

  def _try(self) -> Writer | None:
    """Takes the lock; returns who has it if that is impossible."""
    with writing(self._path):
      is_locked = self._flock()
      holder = self._read()
    if is_locked is False:
      deadline_s = time.monotonic() + _SETTLE_S  # it may be about to write its name
      while holder is None and time.monotonic() < deadline_s:
        time.sleep(0.05)
        holder = self._read()
      return holder or Writer('an unknown host', 0, '', '', 'just now', 'unknown', 0)
    if holder is not None:
      if holder.machine == self._me.machine and (is_locked or holder.started):
        is_gone = is_locked or _started(holder.pid) != holder.started
      else:
        is_gone = self._is_silent(holder)
      if not is_gone:
        return holder
    with writing(self._path):
      self._write()
    if is_locked is None:
      time.sleep(_SETTLE_S)
      if (now := self._read()) not in (self._me, None):
        return now
    return None

  def _flock(self) -> bool | None:
    """Asks the kernel for the file; None where files there cannot be locked."""
    try:
      import fcntl
    except ImportError:  # Windows
      return None
    if '://' in os.fspath(self._path):
      return None
    while True:
      self.close_file()
      self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
      try:
        fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        return False
      except OSError:  # the file system has no locks
        self.close_file()
        return None
      with contextlib.suppress(FileNotFoundError):  # its holder has just removed it: another one
        if os.path.samestat(os.fstat(self._handle), os.stat(self._path)):
          return True

  def _is_silent(self, holder: Writer) -> bool:
    """Waits until a holder on another host has been silent for too long, or gives a sign."""
    print(
      f'{self._folder} was being written by {holder} since {holder.since}: waiting '
      f'{LOST_BEATS * BEAT_S:g} s for a sign of life',
      file=sys.stderr,
      flush=True,
    )
    for _ in range(LOST_BEATS):
      time.sleep(BEAT_S)
      now = self._read()
      if now is None:
        return True
      if now != holder:
        return False
    return True

  def _read(self) -> Writer | None:
    """Who the file names; None where there is none, or it is damaged or of another version."""
    try:
      return Writer(**json.loads(self._path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
      return None

  def _write(self) -> None:
    data = json.dumps(dataclasses.asdict(self._me)) + '\n'
    if self._handle is None:
      self._path.write_text(data)
    else:  # the file that is locked, not another one in its place
      os.pwrite(self._handle, data.encode(), 0)
      os.ftruncate(self._handle, len(data.encode()))

  def _beat(self) -> None:
    while not self._is_over.wait(BEAT_S):
      try:
        now = self._read()
        if now not in (self._me, None):
          print(
            f'{self._folder} was taken over by {now} since {now.since}, while {self._me} gave no '
            f'sign of life: this program ends with status {STATUS}',
            file=sys.stderr,
            flush=True,
          )
          os._exit(STATUS)
        self._me = dataclasses.replace(self._me, beat=time.time_ns())
        self._write()
      except OSError as error:  # such as a full disk: what the run itself writes will tell
        print(f'{self._path}: no sign of life: {error}', file=sys.stderr, flush=True)

  def close_file(self) -> None:
    """Gives the kernel's lock back."""
    if self._handle is not None:
      os.close(self._handle)
      self._handle = None

  def release(self) -> None:
    """Gives the folder back, and removes the file."""
    self._is_over.set()
    self._thread.join()
    with contextlib.suppress(OSError):  # without it the folder is free all the same, only later
      if self._read() in (self._me, None):
        self._path.unlink(missing_ok=True)
    self.close_file()
    with contextlib.suppress(OSError):
      if self._is_new and not list(self._folder.iterdir()):  # what was refused leaves nothing
        self._folder.rmdir()
