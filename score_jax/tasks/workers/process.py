"""One worker process as its parent sees it: starts it, talks to it, ends it."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque

START_S = 60.0  # until it has imported the function
SLOW_S = 0.02  # for an item, as long as nothing is known of it
_GRACE_S = 1.0


class Worker:
  """One process and its socket.

  Attributes:
    items: indices of what it was handed and has not answered; it is at the first of them.
    deadline: when it must be done with that one, or ready (monotonic seconds).
    pace_s: seconds per item lately.
    last_words: once killed, the end of what it printed.
  """

  def __init__(self, function: str, timeout_s: float, memory_bytes: int):
    self.socket, theirs = socket.socketpair()
    self.log = tempfile.TemporaryFile()
    # Our own import path, since the function may live where only this program looks. Fixed hashes:
    # sympy's choices of form, and so a time-out, do not differ from one worker to another.
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    command = [
      sys.executable,
      '-m',
      'score_jax.tasks.workers.main',
      function,
      str(theirs.fileno()),
      str(timeout_s + _GRACE_S),
      str(memory_bytes),
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
    self.items: deque[int] = deque()
    self.deadline = time.monotonic() + START_S
    self.pace_s = SLOW_S
    self.last_words = ''
    self._received = b''

  @property
  def is_idle(self) -> bool:
    """Whether it can be handed items."""
    return self.is_ready and not self.items

  def send(self, batch: dict[int, tuple[str, ...]], timeout_s: float) -> None:
    """Hands over items; raises OSError where the worker is gone or does not listen."""
    self.items = deque(batch)
    self.deadline = time.monotonic() + timeout_s
    self.socket.settimeout(timeout_s)
    self.socket.sendall(b''.join(encode(item) + b'\n' for item in batch.values()))

  def receive(self) -> list[list]:
    """The messages that are complete by now; raises EOFError where the worker died."""
    chunk = self.socket.recv(1 << 16)
    if not chunk:
      raise EOFError
    *lines, self._received = (self._received + chunk).split(b'\n')
    return [json.loads(line) for line in lines]

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


def encode(item: tuple[str, ...]) -> bytes:
  """An item as one line of ASCII, whatever characters it holds."""
  return json.dumps(item).encode('ascii')
