"""Two programs that are measured in turn, each a process that answers requests.

Requests are lines of JSON on stdin, replies lines of JSON on stdout. The peer runs in an
environment of its own, so this file needs no package but numpy, and jax where memory is asked for.
"""

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np


def serve(handlers: dict[str, Callable[..., dict]]) -> None:
  """Answers requests until stdin ends; an error ends the process, its traceback is on stderr.

  Args:
    handlers: by the request's 'do'; called with the request's other entries.
  """
  replies = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)  # what a library prints must not be taken for a reply
  for line in sys.stdin:
    request = json.loads(line)
    reply = handlers[request.pop('do')](**request)
    print(json.dumps(reply), file=replies, flush=True)


def read_arrays(path: str, dtype: str) -> Iterator[tuple[str, np.ndarray]]:
  """Yields a weight file's names and arrays, one in memory at a time.

  Args:
    path: an .npz; bfloat16, which the format lacks, lies in it as uint16.
    dtype: 'float32' or 'bfloat16'.

  Yields:
    ('layers/attn/q', array in dtype) and so on.
  """
  import ml_dtypes

  with np.load(path) as file:
    for name in file.files:
      array = file[name]
      yield name, array.view(ml_dtypes.bfloat16) if dtype == 'bfloat16' else array


class Side:
  """A process that answers requests; to be closed, or used with `with`."""

  def __init__(self, name: str, command: list[str]):
    # Two processes share a GPU: each takes what it needs, not most of it at once.
    env = {**os.environ, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
    self.name = name
    self.process = subprocess.Popen(command, env=env, text=True, **pipes)

  def ask(self, do: str, **entries) -> dict:
    """Sends a request and waits for the reply.

    Args:
      do: what to do.
      **entries: the request's other entries.

    Returns:
      The reply.

    Raises:
      RuntimeError: if the process ended instead.
    """
    try:
      print(json.dumps({'do': do, **entries}), file=self.process.stdin, flush=True)
      reply = self.process.stdout.readline()
    except BrokenPipeError:
      reply = ''
    if not reply:
      status = self.process.wait()
      raise RuntimeError(f'{self.name} ended with status {status} at {do!r}; see its words above')
    return json.loads(reply)

  def close(self) -> None:
    """Ends the process and waits for it."""
    # communicate() closes stdin, and does not mind when the process has ended before.
    self.process.communicate()

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self.close()


class CompileClock:
  """Counts the seconds in which this process traces and compiles, to be taken off a time."""

  def __init__(self):
    from jax import monitoring

    self._spans = []  # (start, seconds), none within another
    monitoring.register_event_duration_secs_listener(self._hear)

  @property
  def seconds(self) -> float:
    """All so far."""
    return sum(seconds for _, seconds in self._spans)

  def _hear(self, event, seconds, **_):
    if event.startswith('/jax/core/compile/'):
      start = time.perf_counter() - seconds
      # What is traced within another trace is told of first, and is a part of it.
      while self._spans and self._spans[-1][0] >= start:
        self._spans.pop()
      self._spans.append((start, seconds))


def reset_peak() -> None:
  """Begins to measure peak memory anew, on CPU; a device's peak cannot be reset."""
  import jax

  if jax.default_backend() == 'cpu':
    pathlib.Path('/proc/self/clear_refs').write_text('5')


def peak_bytes() -> int:
  """Peak memory: of the device since the process began, or on CPU of the process since the reset.

  Returns:
    Bytes.
  """
  import jax

  device = jax.local_devices()[0]
  if device.platform != 'cpu':
    return device.memory_stats()['peak_bytes_in_use']
  status = pathlib.Path('/proc/self/status').read_text()
  return int(status.split('VmHWM:')[1].split()[0]) * 1024


def about(package: str) -> dict:
  """Versions and device, for a table's heading.

  Args:
    package: what is measured and its version.

  Returns:
    {'versions': text, 'device': text}.
  """
  import flax
  import jax

  device = jax.local_devices()[0]
  versions = f'{package}, jax {jax.__version__}, flax {flax.__version__}'
  return {'versions': versions, 'device': f'{device.platform}: {device.device_kind}'}
