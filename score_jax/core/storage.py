"""What is said where a disk does not take what is written: the path, the bytes, why."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator

from etils import epath

# By what the system calls it, since tensorstore passes on its words and not its number.
_FAULTS = {
  os.strerror(number): what
  for number, what in {
    errno.ENOSPC: 'the disk is full',
    errno.EDQUOT: 'the quota of the disk is used up',
    errno.EFBIG: 'a file may not become so large (`ulimit -f`, or the file system)',
    errno.EROFS: 'the file system is read-only',
    errno.EIO: 'the disk does not work (input/output error)',
    errno.EACCES: 'it may not be written to (permissions)',
    errno.EPERM: 'it may not be written to (permissions)',
  }.items()
}


class StorageError(OSError):
  """Something could not be written; the message says where, how much, and why."""


def fault_of(error: BaseException) -> str | None:
  """Says why a disk did not take something; None of an error that is none of a disk's.

  Example:
    >>> fault_of(OSError(28, 'No space left on device')), fault_of(ValueError('no'))
    ('the disk is full', None)
  """
  if isinstance(error, OSError) and error.errno is not None:
    return _FAULTS.get(os.strerror(error.errno))
  text = str(error)
  return next((what for words, what in _FAULTS.items() if words in text), None)


@contextlib.contextmanager
def writing(path: epath.PathLike, num_bytes: int | None = None) -> Iterator[None]:
  """Turns an error of the disk into one with a message for people.

  Args:
    path: what is written.
    num_bytes: how much that is, where it is known.

  Raises:
    StorageError: in place of the disk's error; all others pass.
  """
  try:
    yield
  except StorageError:
    raise
  except Exception as error:
    what = fault_of(error)
    if what is None:
      raise
    needed = f'; {num_bytes:,} bytes were to be written' if num_bytes is not None else ''
    raise StorageError(f'{path} cannot be written: {what}{needed}{_free(path)}') from error


def _free(path: epath.PathLike) -> str:
  """How much there is room for, in words; '' where nobody knows."""
  path = epath.Path(path)
  if '://' in str(path):
    return ''
  for folder in (path, *path.parents):
    with contextlib.suppress(OSError):
      return f'; {shutil.disk_usage(folder).free:,} bytes are free there'
  return ''
