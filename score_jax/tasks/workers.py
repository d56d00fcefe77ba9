"""Worker processes that grade text which may hang, crash or eat memory.

    pool.grade([(reference, text), ...]) -> [Verdict, ...]        in order, one each, always

A worker is a fresh Python that imports one function and calls it on one item after another. It is
started as a program and never forked: the trainer runs jax, whose threads do not survive a fork.
Three limits hold, each where the one before cannot reach:

1. wall-clock time, kept by the parent, which kills the worker and starts another;
2. a kernel timer in the worker, a second later: it ends the worker inside C code too, and when the
   parent itself has died meanwhile (an idle worker sees its socket close, and ends);
3. memory, by RLIMIT_AS in the worker (Linux; macOS does not enforce it).

The worker's own side is worker_main.py.
"""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence

from score_jax.tasks import base

_GRACE_S = 1.0
_START_S = 60.0
_MAX_FAILED_STARTS = 3


class WorkerPool:
  """Grades items in worker processes; a lost worker costs at most the item it was grading.

  Attributes:
    function: 'package.module:name' of a function of strings that returns (reward, reason).
    num_workers: most processes at a time. They start at the first call of `grade`.
    timeout_s: wall-clock seconds per item, the start of a worker not counted.
    memory_bytes: address space of each worker.
    max_chars: items with more characters than this (all strings together) are not graded.
  """

  def __init__(
    self,
    function: str,
    *,
    num_workers: int = 2,
    timeout_s: float = 5.0,
    memory_bytes: int = 1 << 30,
    max_chars: int = 20_000,
  ):
    if num_workers < 1 or timeout_s <= 0:
      raise ValueError(
        f'a pool needs num_workers >= 1 and timeout_s > 0; got {num_workers} and {timeout_s}'
      )
    self.function = function
    self.num_workers = num_workers
    self.timeout_s = timeout_s
    self.memory_bytes = memory_bytes
    self.max_chars = max_chars
    self._workers: list[_Worker] = []
    self._lock = threading.Lock()
    # Also at the end of the interpreter; holds the list, not the pool.
    self._finalizer = weakref.finalize(self, _kill_all, self._workers)

  def grade(self, items: Sequence[tuple[str, ...]]) -> list[base.Verdict]:
    """Grades every item.

    A worker that dies is replaced and its item is tried once more, since the fault may be another's
    (a kill from outside); a second death is the item's own. A time-out is not tried again.

    Args:
      items: arguments of the function, each a tuple of strings (any strings: lone surrogates too).

    Returns:
      One verdict per item, in order. Beside the function's own reasons: 'timeout', 'too_long', and
      'error: ...' for an exception in the function or a worker that died.

    Raises:
      RuntimeError: a worker cannot start (a missing package, say): that is no answer's fault.
      TypeError: an item holds something else than strings.
    """
    with self._lock:
      run = _Run(self, items)
      try:
        return run.verdicts()
      finally:
        # Interrupted: an answer that is still on its way must not meet the next call.
        self._drop([worker for worker in self._workers if worker.item is not None])

  def close(self) -> None:
    """Ends all workers; grading again starts new ones."""
    with self._lock:
      _kill_all(self._workers)

  def _drop(self, workers: Sequence['_Worker']) -> None:
    for worker in workers:
      worker.kill()
      self._workers.remove(worker)


class _Worker:
  """One process and its socket.

  Attributes:
    item: index of the item that it is grading, or None.
    deadline: when it must be done with that, or ready (monotonic seconds).
    last_words: once killed, the end of what it printed.
  """

  def __init__(self, pool: WorkerPool):
    self.socket, theirs = socket.socketpair()
    self.log = tempfile.TemporaryFile()
    # Our own import path, since the function may live where only this program looks. Fixed hashes:
    # sympy's choices of form, and so a time-out, do not differ from one worker to another.
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    command = [
      sys.executable,
      '-m',
      'score_jax.tasks.worker_main',
      pool.function,
      str(theirs.fileno()),
      str(pool.timeout_s + _GRACE_S),
      str(pool.memory_bytes),
    ]
    self.process = subprocess.Popen(
      command,
      pass_fds=[theirs.fileno()],
      start_new_session=True,
      stdin=subprocess.DEVNULL,
      stdout=self.log,
      stderr=self.log,
      env={**os.environ, 'PYTHONPATH': path, 'PYTHONHASHSEED': '0'},
    )
    theirs.close()
    self.is_ready = False
    self.item: int | None = None
    self.deadline = time.monotonic() + _START_S
    self.last_words = ''
    self._received = b''

  @property
  def is_idle(self) -> bool:
    """Whether it can be handed an item."""
    return self.is_ready and self.item is None

  def send(self, index: int, item: tuple[str, ...], timeout_s: float) -> None:
    """Hands over an item; raises OSError where the worker is gone or does not listen."""
    self.item = index
    self.deadline = time.monotonic() + timeout_s
    self.socket.settimeout(timeout_s)
    self.socket.sendall(json.dumps(item).encode('ascii') + b'\n')

  def receive(self) -> list | None:
    """The next message, or None while it is not complete; raises EOFError where the worker died."""
    chunk = self.socket.recv(1 << 16)
    if not chunk:
      raise EOFError
    self._received += chunk
    if not self._received.endswith(b'\n'):
      return None
    message, self._received = json.loads(self._received), b''
    return message

  def kill(self) -> int:
    """Ends the process and all that it started; returns its exit code (negative: a signal)."""
    if not self.log.closed:
      if self.process.poll() is None:
        os.killpg(self.process.pid, signal.SIGKILL)
      self.process.wait()
      self.socket.close()
      self.log.seek(0)
      self.last_words = self.log.read()[-2000:].decode('utf-8', 'replace').strip()
      self.log.close()
    return self.process.returncode


class _Run:
  """One call of `WorkerPool.grade`: which items wait, who grades what, and the verdicts so far."""

  def __init__(self, pool: WorkerPool, items: Sequence[tuple[str, ...]]):
    self.pool = pool
    self.items = items
    self.results: list[base.Verdict | None] = [None] * len(items)
    self.num_deaths = [0] * len(items)
    self.num_failed_starts = 0
    self.waiting: deque[int] = deque()
    for index, item in enumerate(items):
      if not all(isinstance(text, str) for text in item):
        raise TypeError(f'item {index}: only strings can be graded, got {item!r:.200}')
      if sum(map(len, item)) > pool.max_chars:
        self.results[index] = base.Verdict(0.0, 'too_long')
      else:
        self.waiting.append(index)

  def verdicts(self) -> list[base.Verdict]:
    """Runs the event loop until every item has its verdict."""
    workers = self.pool._workers
    while True:
      num_open = sum(result is None for result in self.results)
      if not num_open:
        return list(self.results)
      # Killed while it was idle: no item's fault.
      self.pool._drop(
        [worker for worker in workers if worker.is_idle and worker.process.poll() is not None]
      )
      while len(workers) < min(self.pool.num_workers, num_open):
        workers.append(_Worker(self.pool))
      for worker in [worker for worker in workers if worker.is_idle]:
        if self.waiting:
          self._send(worker)
      self._wait(workers)

  def _send(self, worker: _Worker) -> None:
    index = self.waiting.popleft()
    try:
      worker.send(index, self.items[index], self.pool.timeout_s)
    except OSError:
      self._lost(worker)

  def _wait(self, workers: Sequence[_Worker]) -> None:
    """Sleeps until a worker says something or its time is up, and deals with it."""
    active = [worker for worker in workers if not worker.is_idle]
    if not active:
      return
    with selectors.DefaultSelector() as selector:
      for worker in active:
        selector.register(worker.socket, selectors.EVENT_READ, worker)
      remaining = min(worker.deadline for worker in active) - time.monotonic()
      heard = [key.data for key, _ in selector.select(max(0.0, remaining))]
    for worker in heard:
      self._listen(worker)
    now = time.monotonic()
    for worker in active:
      if worker not in heard and worker.deadline <= now:
        self._late(worker)

  def _listen(self, worker: _Worker) -> None:
    try:
      message = worker.receive()
    except (EOFError, OSError):
      self._lost(worker)
      return
    if message is None:
      return
    if not worker.is_ready:
      worker.is_ready = True
      return
    reward, reason, goes_on = message
    self.results[worker.item] = base.Verdict(float(reward), reason)
    worker.item = None
    if not goes_on:
      self.pool._drop([worker])

  def _late(self, worker: _Worker) -> None:
    if worker.item is None:
      self._failed_start(worker, f'not ready after {_START_S:.0f} s')
      return
    self.results[worker.item] = base.Verdict(0.0, 'timeout')
    self.pool._drop([worker])

  def _lost(self, worker: _Worker) -> None:
    """The worker is gone: its item waits for another one, or is given up."""
    index = worker.item
    exit_code = worker.kill()
    if index is None:
      self._failed_start(worker, f'exit code {exit_code}')
      return
    self.pool._drop([worker])
    if exit_code == -signal.SIGALRM:
      self.results[index] = base.Verdict(0.0, 'timeout')
      return
    self.num_deaths[index] += 1
    if self.num_deaths[index] < 2:
      self.waiting.appendleft(index)
    else:
      self.results[index] = base.Verdict(0.0, f'error: worker died (exit code {exit_code})')

  def _failed_start(self, worker: _Worker, what: str) -> None:
    """Tries again, since it may have been killed from outside; says so when none will start."""
    self.pool._drop([worker])
    self.num_failed_starts += 1
    if self.num_failed_starts >= _MAX_FAILED_STARTS:
      raise RuntimeError(
        f'workers for {self.pool.function} do not start: {self.num_failed_starts} tries, the '
        f'last one: {what}; memory limit {self.pool.memory_bytes:,} bytes. It said:\n'
        f'{worker.last_words}'
      )


def _kill_all(workers: list[_Worker]) -> None:
  while workers:
    workers.pop().kill()
