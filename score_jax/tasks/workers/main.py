"""The program that runs in a grading worker; workers.py starts it.

It imports one function, says that it is ready, and then answers each line of JSON that comes
through its socket with another line. What the function prints goes elsewhere and disturbs nothing.
"""

import gc
import importlib
import json
import resource
import signal
import socket
import sys


def serve(function: str, descriptor: int, alarm_s: float, memory_bytes: int) -> None:
  """Grades until the parent closes the socket.

  Args:
    function: 'package.module:name' of a function of strings that returns (reward, reason).
    descriptor: file descriptor of the socket to the parent.
    alarm_s: seconds per item until the kernel ends this process, whatever it is doing.
    memory_bytes: limit of this process's address space, imports included.
  """
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  if sys.platform == 'linux':
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
  signal.signal(signal.SIGALRM, signal.SIG_DFL)
  module, _, name = function.partition(':')
  grade = getattr(importlib.import_module(module), name)
  gc.freeze()  # what the import made is never garbage, and takes long to look through
  with socket.socket(fileno=descriptor) as connection, connection.makefile('rwb') as parent:
    parent.write(b'["ready"]\n')
    parent.flush()
    for line in parent:
      item = json.loads(line)
      signal.setitimer(signal.ITIMER_REAL, alarm_s)
      reply = _reply(grade, item)
      signal.setitimer(signal.ITIMER_REAL, 0)
      parent.write(json.dumps(reply).encode('ascii') + b'\n')
      parent.flush()


def _reply(grade, item: list[str]) -> tuple[float, str, bool]:
  """(reward, reason, whether this process can go on).

  An exception is the verdict on this text, and the parent sees what it was. After a MemoryError
  there may be no memory for the next item either.
  """
  try:
    reward, reason = grade(*item)
  except Exception as error:
    return 0.0, f'error: {type(error).__name__}: {error}'[:200], not isinstance(error, MemoryError)
  return float(reward), str(reason), True


if __name__ == '__main__':
  serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
