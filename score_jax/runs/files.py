"""Whole-file writes and plain JSON values, the two things every file of a run stands on.

A process can be killed at any moment and an object store cannot append, so a file of a run is
only ever written whole: under a temporary name beside it, then moved over the old one. A reader
sees the old file or the new one, never half of one. What a kill leaves behind is at most one
temporary file per file, which the next write of it replaces.
"""

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from score_jax.core.storage import writing

TEMPORARY_SUFFIX = '.tmp'


def absolute(path: epath.PathLike) -> epath.Path:
  """The path seen from the root: Orbax takes no other. A bucket's path is that already."""
  path = epath.Path(path)
  return path if '://' in str(path) or str(path).startswith('gs:') else path.absolute()


def write_atomic(path: epath.PathLike, data: str | bytes) -> None:
  """Writes a file whole, so that a reader never sees half of it.

  On a local disk the last move is atomic; on an object store it is a copy of one object, which
  appears whole or not at all. Safe against a killed process; a power cut is left to the disk.

  Args:
    path: the file, local or in a bucket (`gs://`); missing parent folders are made.
    data: text (written as UTF-8) or bytes.

  Raises:
    StorageError: where the disk does not take it; the old file is as it was.
  """
  path = epath.Path(path)
  write_together(path.parent, {path.name: data})


def write_together(folder: epath.PathLike, files: Mapping[str, str | bytes]) -> None:
  """Writes files that belong together: all of them, or none where one cannot be written.

  The last one vouches for the others, for a kill may come between two moves: it is taken away
  before the others are replaced, and comes back after them.

  Args:
    folder: local or in a bucket; made where it does not exist.
    files: what each holds, text or bytes, by name.

  Raises:
    StorageError: where the disk does not take one; the old files are as they were.
  """
  folder = epath.Path(folder)
  temporary = {name: folder / f'.{name}{TEMPORARY_SUFFIX}' for name in files}
  for name, data in files.items():
    data = data.encode('utf-8') if isinstance(data, str) else data
    with writing(folder / name, len(data)):
      try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary[name].write_bytes(data)
      except OSError:
        with contextlib.suppress(OSError):  # half of it would take what little room there is
          for path in temporary.values():
            path.unlink(missing_ok=True)
        raise
  with writing(folder):
    if len(files) > 1:
      (folder / list(files)[-1]).unlink(missing_ok=True)
    for name in files:
      temporary[name].replace(folder / name)


def check_writable(folder: epath.PathLike, flag: str = '--workdir') -> None:
  """Checks that a folder can be written, or made; nothing stays of it.

  Args:
    folder: on a local disk; one in a bucket is not looked at.
    flag: that names it.

  Raises:
    ValueError: saying what stands in the way.
  """
  folder = absolute(folder)
  if '://' in str(folder):
    return
  there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
  if not there.is_dir():
    raise ValueError(f'{flag}={folder} cannot be made: {there} is not a directory')
  try:
    tempfile.TemporaryFile(dir=there).close()  # os.access knows no file system but the usual ones
  except OSError as error:
    raise ValueError(
      f'{flag}={folder} cannot be written: {there}: {error.strerror}; choose another folder'
    ) from error


def _null(_: float) -> None:
  return None


def to_plain(value, nonfinite: Callable[[float], Any] = _null):
  """Turns a value into what JSON can hold: dicts, lists, strings, numbers, booleans, null.

  NumPy and JAX scalars become numbers and arrays become nested lists. JSON has no NaN and no
  infinity: each becomes null, which every reader of JSON lines takes for a missing number.

  Args:
    value: nested dicts, lists and tuples of strings, numbers, arrays and None.
    nonfinite: what NaN and the infinities become.

  Returns:
    An equal value of plain Python types; tuples become lists and keys become strings.

  Raises:
    ValueError: for a value of another type, with its place in the nest.

  Example:
    >>> to_plain({'loss': np.float32(0.5), 'kl': float('nan'), 'n': (1, 2)})
    {'loss': 0.5, 'kl': None, 'n': [1, 2]}
  """
  return _to_plain(value, nonfinite, '')


def _to_plain(value, nonfinite, where: str):
  if value is None or isinstance(value, (bool, int, str)):
    return value
  if isinstance(value, float):
    return value if math.isfinite(value) else nonfinite(value)
  if isinstance(value, dict):
    return {str(k): _to_plain(item, nonfinite, f'{where}.{k}') for k, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_to_plain(item, nonfinite, f'{where}[{i}]') for i, item in enumerate(value)]
  if hasattr(value, '__array__'):
    array = np.asarray(value)
    if array.dtype.kind not in 'biufUS':  # bfloat16 and its like have no Python number
      array = array.astype(np.float32)
    return _to_plain(array.tolist(), nonfinite, where)
  if hasattr(value, '__fspath__'):
    return str(value)
  raise ValueError(
    f'a value of type {type(value).__name__} at "{where.lstrip(".") or "the top"}" cannot be'
    ' written as JSON: pass numbers, strings, lists, dicts or arrays'
  )


def to_json(value, **kwargs) -> str:
  """Returns the value as JSON text, pure ASCII, so that one record is always one line.

  Args:
    value: anything that `to_plain` takes.
    **kwargs: passed to `json.dumps`, such as `indent=2`.

  Returns:
    JSON text that is valid for every reader (no bare NaN or Infinity).

  Example:
    >>> to_json({'loss': float('inf'), 'step': np.int32(3)})
    '{"loss": null, "step": 3}'
  """
  return json.dumps(to_plain(value), allow_nan=False, **kwargs)


def read_json(path: epath.PathLike, what_to_do: str):
  """Reads one JSON file of a run.

  Args:
    path: the file.
    what_to_do: the end of the error message should the file be damaged.

  Returns:
    The value.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if it is not JSON, naming the file and the place.
  """
  try:
    return json.loads(epath.Path(path).read_bytes().decode('utf-8'))
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise ValueError(f'{path} is damaged ({error}): {what_to_do}') from error
