"""An open GGUF file: its metadata, its tensors, and errors that say what is wrong with it."""

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from score_jax.core.errors import in_words


@dataclasses.dataclass(frozen=True)
class GgufFile:
  """An open GGUF file, mapped into memory.

  Attributes:
    path: where it was read from; named in every error.
    reader: the `gguf.GGUFReader`.
  """

  path: str
  reader: Any

  def metadata(self, key: str, default: Any = None) -> Any:
    """Returns a metadata value, or `default` where the file has none."""
    field = self.reader.get_field(key)
    return default if field is None else field.contents()

  def number(self, key: str, default: float | None = None) -> int | float:
    """Returns a positive number from the metadata; without a default it must be there."""
    value = self.metadata(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
      said = 'is missing' if value is None else f'is {str(value)[:80]!r}'
      raise ValueError(f'{self.path}: metadata {key} {said}; expected one positive number')
    return value


@contextlib.contextmanager
def open_gguf(path: epath.PathLike) -> Iterator[GgufFile]:
  """Opens a GGUF file, so that several readers need to parse its metadata only once.

  The file is mapped into memory, for which it must be local: a file in a bucket is copied to a
  temporary one, removed at the end.

  Args:
    path: the file, local or in a bucket (`gs://...`).

  Yields:
    The open file.

  Raises:
    ValueError: there is no such file, or it is no GGUF file or a truncated one.
  """
  path = epath.Path(path)
  if not path.exists() or path.is_dir():
    raise ValueError(f'no GGUF file at {path}')
  with contextlib.ExitStack() as stack:
    local = os.fspath(path)
    if '://' in local:
      directory = stack.enter_context(tempfile.TemporaryDirectory())
      local = os.path.join(directory, 'model.gguf')
      with path.open('rb') as source, open(local, 'wb') as target:
        shutil.copyfileobj(source, target, 1 << 24)
    yield GgufFile(os.fspath(path), _parse(local, os.fspath(path)))


def opened(source: epath.PathLike | GgufFile) -> contextlib.AbstractContextManager[GgufFile]:
  """Opens a path; passes an open file through, and leaves it open."""
  return contextlib.nullcontext(source) if isinstance(source, GgufFile) else open_gguf(source)


def _parse(local: str, path: str) -> Any:
  """Parses a local file's metadata; errors name `path`."""
  import gguf

  class Reader(gguf.GGUFReader):
    """Holds the map as a plain array: slicing np.memmap doubles the time to read a vocabulary."""

    @property
    def data(self):
      return self._data

    @data.setter
    def data(self, mapped):
      self._data = mapped.view(np.ndarray)

  try:
    return Reader(local)
  except (ValueError, IndexError, KeyError, OverflowError) as error:
    size = os.path.getsize(local)
    raise ValueError(
      f'{path} ({size:,} bytes) is not a GGUF file, or is damaged or truncated ({in_words(error)})'
    ) from error
