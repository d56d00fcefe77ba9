"""Signs of life: a file that changes for as long as a process works at something alone."""

import contextlib
import threading
import time
from collections.abc import Iterator

from etils import epath

from score_jax.runs.files import write_atomic


@contextlib.contextmanager
def signs_of_life(path: epath.Path, every_s: float) -> Iterator[None]:
  """Changes a file now and then while a block of code lasts; removes it at the end.

  Args:
    path: the file, where others can see it.
    every_s: [seconds] from one change to the next.
  """
  is_over = threading.Event()

  def change():
    write_atomic(path, f'{time.time()}\n')
    while not is_over.wait(every_s):
      write_atomic(path, f'{time.time()}\n')

  thread = threading.Thread(target=change, daemon=True)
  thread.start()
  try:
    yield
  finally:
    is_over.set()
    thread.join()
    path.unlink(missing_ok=True)


def last_sign(path: epath.Path) -> str:
  """What the file holds; '' where it is not, or no more."""
  try:
    return path.read_text()
  except FileNotFoundError:
    return ''
