"""The judge's handle on the sandbox: a zygote, and one candidate after another.

    with sandbox.start(program, seconds) as candidate:
      candidate.load()
      candidate.request('call', ...)

What goes wrong with a candidate is kept (`fault`): tests may catch exceptions, but not this.
"""

import signal
import socket
import subprocess
import tempfile
import time
from typing import Any

from score_jax.tasks.code import isolation, wire

_START_S = 50.0
_END_S = 20.0


class Lost(BaseException):
  """The candidate can no longer be asked; tests that catch Exception do not catch this."""


class SandboxDied(BaseException):
  """The zygote or a keeper ended, which no candidate can bring about; not for tests to catch."""


class Sandbox:
  """A zygote, started at the first candidate and again when it has died.

  Attributes:
    memory_bytes: address space of each candidate.
    cpu_s: seconds of processor time of each candidate.
    allow_unsandboxed: whether a machine without isolation will do.
  """

  def __init__(self, memory_bytes: int, cpu_s: int, allow_unsandboxed: bool):
    self.memory_bytes = memory_bytes
    self.cpu_s = cpu_s
    self.allow_unsandboxed = allow_unsandboxed
    self._process: subprocess.Popen | None = None
    self._connection: socket.socket | None = None
    self._log = None

  def warm(self) -> None:
    """Starts the zygote if there is none.

    Raises:
      RuntimeError: it does not start, or this machine has no isolation.
    """
    if self._process is not None and self._process.poll() is None:
      return
    self.close()
    self._log = tempfile.TemporaryFile()
    self._connection, theirs = socket.socketpair()
    with theirs:
      self._process = isolation.start_zygote(theirs, self.memory_bytes, self.cpu_s, self._log)
    self._connection.settimeout(_START_S)
    try:
      report = isolation.Report(*map(tuple, wire.receive(self._connection.recv)))
    except (OSError, EOFError) as error:
      words = self.close()
      raise RuntimeError(f'the sandbox does not start: {error!r}. It said:\n{words}') from error
    if not (report.is_enough or self.allow_unsandboxed):
      self.close()
      raise RuntimeError(f'the sandbox confines nothing: {report}')

  def start(self, seconds: float) -> 'Candidate':
    """Starts a process for a program.

    Args:
      seconds: wall-clock time from now until it is ended.

    Raises:
      SandboxDied: the zygote is gone.
    """
    channel, its_channel = socket.socketpair()
    lifeline, its_lifeline = socket.socketpair()
    with its_channel, its_lifeline:
      try:
        socket.send_fds(self._connection, [b'+'], [its_channel.fileno(), its_lifeline.fileno()])
      except OSError as error:
        channel.close()
        lifeline.close()
        raise SandboxDied(str(error)) from error
    return Candidate(channel, lifeline, time.monotonic() + seconds)

  def close(self) -> str:
    """Ends the zygote, and with it every process of the sandbox; returns its last words."""
    if self._connection is not None:
      self._connection.close()
      self._connection = None
    if self._process is not None:
      self._process.kill()
      self._process.wait()
      self._process = None
    words = ''
    if self._log is not None:
      self._log.seek(0)
      words = self._log.read()[-2000:].decode('utf-8', 'replace').strip()
      self._log.close()
      self._log = None
    return words


class Candidate:
  """One confined process that runs one program; a context manager that ends it.

  Attributes:
    fault: why the program failed, whatever the tests make of it, or None.
    exit_code: how the process ended, known once it has: as in `subprocess`.
    num_calls: how often a function of the program was called.
  """

  def __init__(self, channel: socket.socket, lifeline: socket.socket, deadline: float):
    self._channel = channel
    self._lifeline = lifeline
    self._deadline = deadline
    self.fault: str | None = None
    self.exit_code: int | None = None
    self.num_calls = 0

  def __enter__(self) -> 'Candidate':
    return self

  def __exit__(self, *_) -> None:
    self.end()

  def request(self, *message: Any) -> list:
    """Sends a message and waits for the reply.

    Args:
      *message: see candidate.py.

    Returns:
      The reply, as it came: a candidate writes what it likes.

    Raises:
      Lost: there is no reply; `fault` says why.
    """
    if self.fault is not None:
      raise Lost(self.fault)
    self.num_calls += message[0] == 'call'
    try:
      frame = wire.pack(message)
      while frame:
        frame = frame[self._in_time(self._channel.send, frame) :]
      return wire.receive(lambda size: self._in_time(self._channel.recv, size))
    except TimeoutError:
      self.fault = 'timeout'
    except wire.BadFrame:
      self.fault = 'error: bad message'
    except (EOFError, OSError):
      self.fault = self.end()
    raise Lost(self.fault)

  def end(self) -> str:
    """Ends the process and all that it started, and waits until they are gone.

    Returns:
      What to say of a program whose process ended before it had answered.

    Raises:
      SandboxDied: its keeper did not report.
    """
    if self.exit_code is None:
      try:
        self._lifeline.settimeout(_END_S)
        self._lifeline.send(b'-')
        said = self._lifeline.recv(16)
        self._lifeline.recv(1)  # returns when the keeper is gone too
      except OSError:
        said = b''
      self._lifeline.close()
      self._channel.close()
      if not said:
        raise SandboxDied('the keeper of a candidate ended without a word')
      self.exit_code = int(said)
    if self.exit_code == isolation.OUT_OF_MEMORY:
      return 'error: memory'
    if self.exit_code == -signal.SIGXCPU:
      return 'timeout'
    if self.exit_code < 0:
      return f'error: killed by {signal.Signals(-self.exit_code).name}'
    return 'error: exit'

  def _in_time(self, operation, argument):
    remaining = self._deadline - time.monotonic()
    if remaining <= 0:
      raise TimeoutError
    self._channel.settimeout(remaining)
    return operation(argument)
