"""Notices that a process of a run is lost or that the run hangs, says which and where, and ends it.

Processes of one program wait for each other in every collective operation, for as long as it takes:
if one is killed, or stuck, all others stand still without a word. So each process says, every few
seconds, where it is, in `heartbeats/processNNNN.json` of the run directory. Process 0 reads the
files of all and every other process that of process 0: what is read grows with the number of
processes, not with its square.

Nothing is measured by the clock of another host: a process counts as lost when its file has stayed
the same over `LOST_BEATS` looks at it, and a hang is counted in looks, so that a computer that was
asleep wakes up to no alarm.
"""

import contextlib
import dataclasses
import datetime
import faulthandler
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures

import jax
from etils import epath

from score_jax.core.errors import in_words
from score_jax.runs.files import to_json, write_atomic

STATUS = 75  # the program's exit status, EX_TEMPFAIL of sysexits.h: the same command may try again
LOST_BEATS = 6  # a process that has been silent for so many looks is lost
BEAT_S = 10.0  # between two looks, unless hang_s is short
_BEATS_OF_HANG = 60  # a hang is never found after fewer looks than this
_MAX_NAMED = 8  # processes in one message
_MAX_THREADS = 16  # files read at the same time: hides the delay of a bucket


@dataclasses.dataclass(frozen=True)
class Place:
  """Where a process is.

  Attributes:
    marks: how often it has got on since its start; counts alike on all processes of a run.
    step: the step or update that it is at; of an evaluation the problems that are sampled.
    phase: the part of the step.
    since: the time of its own clock, UTC.
  """

  marks: int
  step: int
  phase: str
  since: str

  def __str__(self) -> str:
    return f'at step {self.step} ({self.phase}) since {self.since}'


@dataclasses.dataclass
class _Peer:
  """What is known of another process."""

  is_read: bool = False
  first: int | None = None  # the beat found at first: it may be of an earlier start
  beat: int | None = None
  num_silent: int = 0
  record: dict = dataclasses.field(default_factory=dict)

  @property
  def place(self) -> Place | None:
    return Place(**self.record['place']) if self.record else None


class Watchdog:
  """Watches over one loop of one process."""

  def __init__(
    self,
    workdir: epath.PathLike,
    hang_s: float,
    process: int | None = None,
    count: int | None = None,
    end: Callable[[], None] | None = None,
  ):
    """Does nothing until `watching`.

    Args:
      workdir: the run directory.
      hang_s: [seconds] without a call of `at` after which the program is ended; 0 watches nothing.
      process: this process; jax's index by default.
      count: processes of the run; jax's number by default.
      end: ends the program; by default at once, with `STATUS`.
    """
    self._folder = epath.Path(workdir) / 'heartbeats'
    self._hang_s = hang_s
    self._process = jax.process_index() if process is None else process
    self._count = jax.process_count() if count is None else count
    self._end = end or (lambda: os._exit(STATUS))
    self.beat_s = min(BEAT_S, hang_s / _BEATS_OF_HANG)
    self._place = self._seen = Place(0, 0, 'start', _now())
    self._num_idle = 0
    watched = range(1, self._count) if self._process == 0 else [0]
    self._peers = {peer: _Peer() for peer in watched}
    self._is_over = threading.Event()
    self._is_ending = threading.Lock()

  def at(self, step: int, phase: str) -> None:
    """Says that this process got on; as often on every process of the run.

    Args:
      step: the step or update that begins or goes on.
      phase: what is done now.
    """
    self._place = Place(self._place.marks + 1, step, phase, _now())

  @contextlib.contextmanager
  def watching(self, agreed: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Watches while the block runs.

    An error of one process leaves the others waiting for it, so it is reported. But it may be all
    that this process sees of the loss of another one ("connection closed by peer", which jax
    raises as one type or another): so a loss is looked for first, since its message says more.

    Args:
      agreed: exceptions that all processes raise together.

    Yields:
      Nothing.
    """
    if self._hang_s <= 0:
      yield
      return
    thread = threading.Thread(target=self._watch, name='watchdog', daemon=True)
    thread.start()
    report = ''
    try:
      yield
    except agreed:
      raise
    except BaseException as error:
      report = f'{type(error).__name__} {self._place}: {in_words(error)}'
      if isinstance(error, Exception) and self._count > 1:
        self._say(f'{report}\nIf another process is lost, that is said within {self._grace_s:g} s')
        time.sleep(self._grace_s)
      raise
    finally:
      self._is_over.set()
      thread.join()
      if self._count > 1:
        self._report(report, is_over=True)

  @property
  def _grace_s(self) -> float:
    """Time in which a loss is found, by process 0, and read from its file."""
    return (LOST_BEATS + 4) * self.beat_s

  def _watch(self) -> None:
    """The thread. It touches no file itself: where the disk hangs, that is found too."""
    exchange = None
    while not self._is_over.wait(self.beat_s):
      if self._count > 1 and (exchange is None or not exchange.is_alive()):
        exchange = threading.Thread(target=self.exchange, name='heartbeat', daemon=True)
        exchange.start()
      self.look()
    if exchange is not None:
      exchange.join(2 * self.beat_s)

  def look(self) -> None:
    """Counts this process's standstill, and ends the program when it is too long."""
    place = self._place
    self._num_idle = 0 if place is not self._seen else self._num_idle + 1
    self._seen = place
    limit = self._hang_s / self.beat_s
    # Process 0 knows where all are: let it speak first.
    if self._num_idle >= limit + (0 if self._process == 0 else LOST_BEATS):
      self._finish(f'no progress for {self._hang_s:g} s: process {self._process} is {place}; ')

  def exchange(self) -> None:
    """Writes where this process is, reads where others are, and ends the program if one is lost."""
    try:
      self._write()
      with futures.ThreadPoolExecutor(_MAX_THREADS) as pool:
        records = dict(zip(self._peers, pool.map(self._read, self._peers), strict=True))
    except OSError as error:  # what could not be read is held against nobody
      logging.warning('process %d: no heartbeat: %s', self._process, error)
      return
    for index, record in records.items():
      self._hear(self._peers[index], record)
    for index, peer in self._peers.items():
      if peer.record.get('report'):
        return self._finish(f'process {index} of {self._count} says: {peer.record["report"]}')
    lost = [i for i, peer in self._peers.items() if peer.num_silent >= LOST_BEATS]
    if lost:
      self._finish(
        f'no sign of life for {LOST_BEATS * self.beat_s:g} s from {self._places(lost)}; '
        f'process {self._process} of {self._count} is {self._place}'
      )

  def _hear(self, peer: _Peer, record: dict) -> None:
    beat = record.get('beat')
    if not peer.is_read:
      peer.is_read, peer.first = True, beat
    is_new = beat != peer.beat
    peer.beat = beat
    if beat is not None and beat != peer.first:
      peer.record = record
    # One that is over, or that has not begun since this process did, cannot be lost.
    is_waited_for = peer.record and not peer.record['is_over']
    peer.num_silent = 0 if is_new or not is_waited_for else peer.num_silent + 1

  def _places(self, indices: list[int]) -> str:
    """Names processes with their places."""
    names = [f'process {i} (last {self._peers[i].place})' for i in indices[:_MAX_NAMED]]
    more = [f'{len(indices) - _MAX_NAMED} more'] if len(indices) > _MAX_NAMED else []
    return ', '.join(names + more)

  def _behind(self) -> str:
    """Says which processes have got less far than others."""
    if self._count == 1:
      return 'it is the only process'
    absent = [i for i, peer in self._peers.items() if not peer.record]
    marks = {i: peer.place.marks for i, peer in self._peers.items() if peer.record}
    least = min([*marks.values(), self._place.marks])
    behind = [i for i, m in marks.items() if m == least < self._place.marks]
    parts = [f'not heard of since this start: processes {absent[:_MAX_NAMED]}'] if absent else []
    if behind:
      parts.append(f'waiting for {self._places(behind)}')
    elif any(m > least for m in marks.values()):
      parts.append('the others wait for this one')
    return '; '.join(parts) or 'no other one that it watches is behind'

  def _path(self, process: int) -> epath.Path:
    return self._folder / f'process{process:04d}.json'

  def _write(self, report: str = '', is_over: bool = False) -> None:
    place = dataclasses.asdict(self._place)
    record = {'beat': time.time_ns(), 'place': place, 'report': report, 'is_over': is_over}
    write_atomic(self._path(self._process), to_json(record) + '\n')

  def _report(self, report: str, is_over: bool = False) -> None:
    try:
      self._write(report, is_over)
    except OSError as error:
      self._say(f'this could not be reported to the others: {in_words(error)}')

  def _read(self, process: int) -> dict:
    try:
      return json.loads(self._path(process).read_text())
    except FileNotFoundError:
      return {}

  def _say(self, text: str) -> None:
    print(f'watchdog of process {self._process}: {text}', file=sys.stderr, flush=True)

  def _finish(self, report: str) -> None:
    """Reports here and to the others, and ends the program, whatever the main thread does."""
    if not self._is_ending.acquire(blocking=False):
      return  # the other thread is at it
    if report.endswith('; '):
      report += self._behind()
    self._say(
      f'{report}\nThis program ends with status {STATUS}; the same command goes on from the last '
      'checkpoint, an evaluation from its beginning. Where every thread is:'
    )
    faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
    if self._count > 1:
      reporting = threading.Thread(target=self._report, args=(report,), daemon=True)
      reporting.start()
      reporting.join(2 * self.beat_s)  # no longer: the disk may be what hangs
      if self._process == 0:
        time.sleep(2 * self.beat_s)  # the coordinator goes last: without it jax aborts the others
    self._end()


def _now() -> str:
  return datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
