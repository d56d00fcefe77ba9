"""Worker processes that grade text which may hang, crash or eat memory.

    pool.grade([(reference, text), ...]) -> [Verdict, ...]        in order, one each, always

A worker is a fresh Python that imports one function and calls it on one item after another. It is
started as a program and never forked: the trainer runs jax, whose threads do not survive a fork.
Three limits hold, each where the one before cannot reach:

1. wall-clock time, kept by the parent, which kills the worker and starts another;
2. a kernel timer in the worker, a second later: it ends the worker inside C code too, and when the
   parent itself has died meanwhile (an idle worker sees its socket close, and ends);
3. memory, by RLIMIT_AS in the worker (Linux; macOS does not enforce it).

Short items travel several at a time, and each has its own limits all the same. One worker is
worker_process.py, and its own side worker_main.py.
"""

import hashlib
import selectors
import signal
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Sequence

from score_jax.tasks import base
from score_jax.tasks.workers.process import SLOW_S, START_S, Worker, encode

_MAX_FAILED_STARTS = 5  # one after the other
_MAX_DEATHS = 3
# Items are sent together while they take no longer than one slow item.
_BATCH_ITEMS = 16
_BATCH_CHARS = 4096  # fits a socket's buffer, so that neither side waits for the other


class WorkerPool:
  """Grades items in worker processes; a lost worker costs at most the item it was grading.

  Attributes:
    function: 'package.module:name' of a function of strings that returns (reward, reason).
    num_workers: most processes at a time. They start at the first call of `grade`.
    timeout_s: wall-clock seconds per item, the start of a worker not counted.
    memory_bytes: address space of each worker.
    max_chars: items with more characters than this (all strings together) are not graded.
    cache_size: most verdicts to remember, the latest used ones. 0: equal items are graded each by
      itself. Only what the function itself decided is remembered; a time-out or an error, which
      may be the machine's fault, is shared by equal items of one call and then forgotten. So a
      cache changes no verdict that a second call could not change as well.
  """

  def __init__(
    self,
    function: str,
    *,
    num_workers: int = 2,
    timeout_s: float = 5.0,
    memory_bytes: int = 1 << 30,
    max_chars: int = 20_000,
    cache_size: int = 0,
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
    self.cache_size = cache_size
    self._cache: OrderedDict[bytes, base.Verdict] = OrderedDict()
    self._workers: list[Worker] = []
    self._lock = threading.Lock()
    # Also at the end of the interpreter; holds the list, not the pool.
    self._finalizer = weakref.finalize(self, _kill_all, self._workers)

  def grade(self, items: Sequence[tuple[str, ...]]) -> list[base.Verdict]:
    """Grades every item.

    A worker that dies is replaced and its item is tried again, since the fault may be another's
    (a kill from outside); a third death is the item's own. So is a second MemoryError. A time-out
    is not tried again.

    Args:
      items: arguments of the function, each a tuple of strings (any strings: lone surrogates too).

    Returns:
      One verdict per item, in order. Beside the function's own reasons: 'timeout', 'too_long', and
      'error: ...' for an exception in the function or a worker that died.

    Raises:
      RuntimeError: a worker cannot start (a missing package, say): that is no answer's fault.
      TypeError: an item holds something else than strings.
    """
    for index, item in enumerate(items):
      if not all(isinstance(text, str) for text in item):
        raise TypeError(f'item {index}: only strings can be graded, got {item!r:.200}')
    with self._lock:
      if not self.cache_size:
        return self._run(items)
      keys = [hashlib.blake2b(encode(item), digest_size=16).digest() for item in items]
      new = {key: item for key, item in zip(keys, items, strict=True) if key not in self._cache}
      found = {key: self._cache[key] for key in keys if key in self._cache}
      found |= zip(new, self._run(list(new.values())), strict=True)
      for key, verdict in found.items():
        if verdict.kind not in ('timeout', 'error'):
          self._cache[key] = verdict
          self._cache.move_to_end(key)
      while len(self._cache) > self.cache_size:
        self._cache.popitem(last=False)
      return [found[key] for key in keys]

  def close(self) -> None:
    """Ends all workers; grading again starts new ones."""
    with self._lock:
      _kill_all(self._workers)

  def _run(self, items: Sequence[tuple[str, ...]]) -> list[base.Verdict]:
    run = _Run(self, items)
    try:
      return run.verdicts()
    finally:
      # Interrupted: an answer that is still on its way must not meet the next call.
      self._drop([worker for worker in self._workers if worker.items])

  def _drop(self, workers: Sequence[Worker]) -> None:
    for worker in workers:
      worker.kill()
      self._workers.remove(worker)


class _Run:
  """One call of `WorkerPool.grade`: which items wait, who grades what, and the verdicts so far."""

  def __init__(self, pool: WorkerPool, items: Sequence[tuple[str, ...]]):
    self.pool = pool
    self.items = items
    self.results: list[base.Verdict | None] = [None] * len(items)
    self.num_open = len(items)
    self.num_deaths = [0] * len(items)
    self.num_failed_starts = 0
    self.waiting: deque[int] = deque()
    for index, item in enumerate(items):
      if sum(map(len, item)) > pool.max_chars:
        self._decide(index, base.Verdict(0.0, 'too_long'))
      else:
        self.waiting.append(index)

  def verdicts(self) -> list[base.Verdict]:
    """Runs the event loop until every item has its verdict."""
    pool, workers = self.pool, self.pool._workers
    while self.num_open:
      # Killed while it was idle: no item's fault.
      pool._drop(
        [worker for worker in workers if worker.is_idle and worker.process.poll() is not None]
      )
      while len(workers) < min(pool.num_workers, self.num_open):
        workers.append(Worker(pool.function, pool.timeout_s, pool.memory_bytes))
      for worker in [worker for worker in workers if worker.is_idle]:
        if self.waiting:
          self._send(worker)
      self._wait(workers)
    return list(self.results)

  def _decide(self, index: int, verdict: base.Verdict) -> None:
    self.results[index] = verdict
    self.num_open -= 1

  def _send(self, worker: Worker) -> None:
    """Hands over the next item, and as many after it as are worth the journey."""
    most = min(_BATCH_ITEMS, int(SLOW_S / worker.pace_s), len(self.waiting) // 4)
    batch, num_chars = {}, 0
    while self.waiting and (not batch or (len(batch) < most and num_chars < _BATCH_CHARS)):
      index = self.waiting.popleft()
      batch[index] = self.items[index]
      num_chars += sum(map(len, batch[index]))
    try:
      worker.send(batch, self.pool.timeout_s)
    except OSError:
      self._lost(worker)

  def _wait(self, workers: Sequence[Worker]) -> None:
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

  def _listen(self, worker: Worker) -> None:
    try:
      messages = worker.receive()
    except (EOFError, OSError):
      self._lost(worker)
      return
    for message in messages:
      if not worker.is_ready:
        worker.is_ready = True
        self.num_failed_starts = 0
      elif worker.items:  # else it was ended over an earlier message
        self._answered(worker, *message)

  def _answered(self, worker: Worker, reward: float, reason: str, goes_on: bool) -> None:
    now = time.monotonic()
    seconds = max(1e-6, now - worker.deadline + self.pool.timeout_s)
    worker.pace_s += (seconds - worker.pace_s) / 8
    worker.deadline = now + self.pool.timeout_s
    index = worker.items.popleft()
    if goes_on:
      self._decide(index, base.Verdict(float(reward), reason))
      return
    # It ran out of memory, of which an earlier item may have left too little.
    self._end(worker)
    self._try_again(index, base.Verdict(0.0, reason), most=2)

  def _late(self, worker: Worker) -> None:
    if not worker.is_ready:
      self._failed_start(worker, f'not ready after {START_S:.0f} s')
      return
    self._decide(worker.items.popleft(), base.Verdict(0.0, 'timeout'))
    self._end(worker)

  def _lost(self, worker: Worker) -> None:
    """The worker is gone: its item waits for another one, or is given up."""
    exit_code = worker.kill()
    if not worker.is_ready:
      self._failed_start(worker, f'exit code {exit_code}')
      return
    index = worker.items.popleft() if worker.items else None
    self._end(worker)
    if index is None:
      return
    if exit_code == -signal.SIGALRM:
      self._decide(index, base.Verdict(0.0, 'timeout'))
      return
    verdict = base.Verdict(0.0, f'error: worker died (exit code {exit_code})')
    self._try_again(index, verdict, most=_MAX_DEATHS)

  def _try_again(self, index: int, verdict: base.Verdict, most: int) -> None:
    """Puts an item first in the queue; after as many tries as it may have, that was its verdict."""
    self.num_deaths[index] += 1
    if self.num_deaths[index] < most:
      self.waiting.appendleft(index)
    else:
      self._decide(index, verdict)

  def _end(self, worker: Worker) -> None:
    """Ends a worker; the items that it had not come to wait for another one."""
    self.waiting.extendleft(reversed(worker.items))
    worker.items.clear()
    self.pool._drop([worker])

  def _failed_start(self, worker: Worker, what: str) -> None:
    """Tries again, since it may have been killed from outside; says so when none will start."""
    self.pool._drop([worker])
    self.num_failed_starts += 1
    if self.num_failed_starts >= _MAX_FAILED_STARTS:
      raise RuntimeError(
        f'workers for {self.pool.function} do not start: {self.num_failed_starts} tries, the '
        f'last one: {what}; memory limit {self.pool.memory_bytes:,} bytes. It said:\n'
        f'{worker.last_words}'
      )


def _kill_all(workers: list[Worker]) -> None:
  while workers:
    workers.pop().kill()
