"""What the workers of test_pool.py do; it imports little, since each of them does."""

import os
import signal
import sys
import time

COUNTS = []  # in a worker: what it was asked to count


def act(what: str, argument: str) -> tuple[float, str]:
  """Does what it is asked to."""
  if what == 'echo':
    return 1.0, argument
  if what == 'sleep':
    time.sleep(float(argument))
    return 1.0, 'slept'
  if what == 'hang_in_c':
    return float(9**9**9), 'never'  # One C call that no Python signal handler interrupts.
  if what == 'eat':
    return float(len(bytearray(int(argument)))), 'ate'
  if what == 'exit':
    os._exit(7)
  if what == 'exit_once':
    if os.path.exists(argument):
      return 1.0, 'second try'
    open(argument, 'w').close()
    os.kill(os.getpid(), signal.SIGKILL)
  if what == 'pid':
    return 1.0, str(os.getpid())
  if what == 'count':
    COUNTS.append(argument)
    return 1.0, str(len(COUNTS))
  if what == 'jax':
    return 1.0, str('jax' in sys.modules)
  raise KeyError(what)
