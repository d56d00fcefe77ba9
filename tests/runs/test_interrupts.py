"""Ctrl-C: once, twice, and the same one twice."""

import os
import signal
import threading
import time

import pytest

from score_jax.runs import interrupts
from score_jax.runs.interrupts import interruptible


@pytest.fixture
def ends(monkeypatch):
  """What ended the program, had it been one."""
  found = []
  monkeypatch.setattr(interrupts.os, '_exit', found.append)
  return found


def wait_for(condition):
  deadline_s = time.monotonic() + 10
  while not condition():
    assert time.monotonic() < deadline_s
    time.sleep(0.01)


def test_the_first_asks_and_the_second_ends(ends, capsys):
  before, asked = signal.getsignal(signal.SIGINT), []
  with interruptible(lambda: asked.append(1), lambda: 'step 7 is kept', 'saving first'):
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)  # the terminal's, and the parent's
    wait_for(lambda: asked)
    time.sleep(interrupts._SAME_S + 0.1)
    assert asked == [1] and not ends
    os.kill(os.getpid(), signal.SIGINT)
    wait_for(lambda: ends)
  assert ends == [130] and asked == [1]
  assert signal.getsignal(signal.SIGINT) == before
  assert capsys.readouterr().err.splitlines() == [
    'saving first',
    'ended at once by a second Ctrl-C; step 7 is kept',
  ]


def test_the_second_ends_what_python_does_not_get_to_hear(ends):
  """As while something compiles: the handler has not run, the thread has."""
  with interruptible(lambda: None, lambda: ''):
    listener = signal.set_wakeup_fd(-1)
    for _ in range(2):
      os.write(listener, bytes([signal.SIGTERM, signal.SIGINT]))
      time.sleep(interrupts._SAME_S + 0.1)
    wait_for(lambda: ends)
    signal.set_wakeup_fd(listener, warn_on_full_buffer=False)


def test_an_inner_block_hears_it_alone(ends):
  outer, inner = [], []
  with interruptible(lambda: outer.append(1), lambda: ''):
    with interruptible(lambda: inner.append(1), lambda: ''):
      signal.raise_signal(signal.SIGINT)
      wait_for(lambda: inner)
    assert not outer
    signal.raise_signal(signal.SIGINT)
    wait_for(lambda: outer)
  assert (inner, outer, ends) == ([1], [1], [])


def test_elsewhere_than_in_the_main_thread_signals_are_left_alone():
  before, found = signal.getsignal(signal.SIGINT), []

  def run():
    with interruptible(lambda: None, lambda: ''):
      found.append(signal.getsignal(signal.SIGINT))

  thread = threading.Thread(target=run)
  thread.start()
  thread.join()
  assert found == [before]
