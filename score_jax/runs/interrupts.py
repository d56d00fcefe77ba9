"""Ctrl-C: the first one is heard by whoever is asked, the second one ends the program at once."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

STATUS = 128 + signal.SIGINT  # what a shell calls the end by Ctrl-C
# A terminal sends Ctrl-C to a program and to what that has started, and the program passes it on:
# what comes so soon after the first is the first.
_SAME_S = 0.3


@contextlib.contextmanager
def interruptible(
  first: Callable[[], None], kept: Callable[[], str], words: str = ''
) -> Iterator[None]:
  """Deals with Ctrl-C (SIGINT) while the block lasts.

  The second one is heard by a thread, since Python tells the main one of a signal only when a
  compilation or a wait for the device has come back. Outside the main thread it does nothing:
  signals are not that thread's.

  Args:
    first: called in the main thread at the first one; may raise.
    kept: says what is kept, for the end by the second one.
    words: what is printed at the first one, at once.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  is_new = True

  def handle(*_):
    nonlocal is_new
    if is_new:  # also while its KeyboardInterrupt is on its way
      is_new = False
      first()

  hears, tells = socket.socketpair()
  tells.setblocking(False)
  thread = threading.Thread(target=_listen, args=(hears, kept, words), daemon=True)
  thread.start()
  handler = signal.signal(signal.SIGINT, handle)
  wakeup = signal.set_wakeup_fd(tells.fileno(), warn_on_full_buffer=False)
  try:
    yield
  finally:
    signal.set_wakeup_fd(wakeup)
    signal.signal(signal.SIGINT, handler)
    tells.close()
    thread.join()
    hears.close()


def _listen(hears: socket.socket, kept: Callable[[], str], words: str) -> None:
  """The thread: reads the number of each signal that has come, until nobody tells any more."""
  first_s = None
  while number := hears.recv(1):
    if number[0] != signal.SIGINT:
      continue
    if first_s is None:
      first_s = time.monotonic()
      if words:
        print(words, file=sys.stderr, flush=True)
    elif time.monotonic() - first_s > _SAME_S:
      print(f'ended at once by a second Ctrl-C; {kept()}', file=sys.stderr, flush=True)
      os._exit(STATUS)
