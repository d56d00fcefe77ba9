"""Reads and writes safetensors files, one tensor at a time.

    8 bytes   N, little-endian
    N bytes   JSON: name -> {'dtype', 'shape', 'data_offsets'}, and '__metadata__'
    the rest  the tensors' bytes, without gaps

The format is read here and not through the safetensors package because a tensor is wanted as
NumPy bytes of its own type (the package's NumPy reader has no bfloat16), read and not mapped (a
mapped file counts as memory for as long as its pages stay), from a disk or a bucket alike.
"""

import dataclasses
import json
import math
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from score_jax.core.errors import in_words

DTYPES = {
  'F32': np.dtype(np.float32),
  'BF16': np.dtype(jnp.bfloat16),
  'F16': np.dtype(np.float16),
}
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit


@dataclasses.dataclass(frozen=True)
class Tensor:
  """Where a tensor lies.

  Attributes:
    path: of the file.
    name: of the tensor.
    dtype: as the file spells it, such as 'BF16'.
    shape: its sizes.
    start: offset of its first byte in the file.
    num_bytes: how many bytes it takes.
  """

  path: epath.Path
  name: str
  dtype: str
  shape: tuple[int, ...]
  start: int
  num_bytes: int

  def __str__(self):
    return f'{self.path}: tensor {self.name}'

  def read(self) -> np.ndarray:
    """Returns the values, in the type of the file.

    Raises:
      ValueError: the file has become shorter than it was.
    """
    with self.path.open('rb') as file:
      file.seek(self.start)
      data = file.read(self.num_bytes)
    if len(data) != self.num_bytes:
      raise ValueError(f'{self} should have {self.num_bytes} bytes, only {len(data)} are there')
    return np.frombuffer(data, DTYPES[self.dtype]).reshape(self.shape)


def read_header(path: epath.PathLike) -> dict[str, Tensor]:
  """Reads what a file holds, and checks that all of it is there.

  Args:
    path: the file, local or in a bucket.

  Returns:
    Its tensors, by name; none of their values is read.

  Raises:
    ValueError: naming the file, and the tensor where there is one: it is missing or no safetensors
      file, is truncated or has bytes that belong to no tensor, or a tensor's type or size is wrong.
  """
  path = epath.Path(path)
  if not path.exists():
    raise ValueError(f'{path} is missing')
  size = path.stat().length
  with path.open('rb') as file:
    header_bytes = int.from_bytes(file.read(8), 'little')
    if size < 8 or header_bytes > min(size - 8, _MAX_HEADER_BYTES):
      raise ValueError(
        f'{path} ({size:,} bytes) is no safetensors file, or is truncated: its header should have '
        f'{header_bytes:,} bytes'
      )
    text = file.read(header_bytes)
  try:
    entries = json.loads(text)
    entries.pop('__metadata__', None)
    tensors = {
      name: _tensor(path, name, entry, 8 + header_bytes) for name, entry in entries.items()
    }
  except (UnicodeDecodeError, json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
    raise ValueError(f'{path}: the header is damaged ({in_words(error)})') from error
  end = 8 + header_bytes
  for tensor in sorted(tensors.values(), key=lambda t: (t.start, t.num_bytes)):
    if tensor.start != end:
      raise ValueError(f'{tensor} begins at byte {tensor.start}, but the one before ends at {end}')
    end += tensor.num_bytes
    if end > size:
      raise ValueError(f'{tensor} ends at byte {end:,}, but the file has {size:,}: it is truncated')
  if end != size:
    raise ValueError(f'{path} has {size:,} bytes, but its tensors end at byte {end:,}')
  return tensors


def _tensor(path: epath.Path, name: str, entry: dict[str, Any], base: int) -> Tensor:
  """One entry of a header, checked."""
  begin, end = entry['data_offsets']
  tensor = Tensor(path, name, entry['dtype'], tuple(entry['shape']), base + begin, end - begin)
  if tensor.dtype not in DTYPES:
    raise ValueError(f'{tensor} is of type {tensor.dtype}; only {", ".join(DTYPES)} are read')
  wanted = math.prod(tensor.shape) * DTYPES[tensor.dtype].itemsize
  if tensor.num_bytes != wanted or min(tensor.shape, default=1) < 0:
    raise ValueError(
      f'{tensor} of shape {tensor.shape} and type {tensor.dtype} has {tensor.num_bytes} bytes, '
      f'not {wanted}'
    )
  return tensor


def write_file(
  path: epath.PathLike,
  shapes: dict[str, tuple[int, ...]],
  dtype: np.dtype,
  tensors: Iterable[tuple[str, np.ndarray]],
) -> None:
  """Writes a file, one tensor after the other.

  Args:
    path: the file; what a kill leaves of it is for the caller to remove.
    shapes: the tensors' shapes, in the order in which they are written.
    dtype: of all of them: float32, bfloat16 or float16.
    tensors: names and values in that order; made one at a time, they need not be in memory at once.

  Raises:
    ValueError: if the tensors are not those that were announced.
  """
  dtype = np.dtype(dtype)
  label = next((name for name, known in DTYPES.items() if known == dtype), None)
  if label is None:
    raise ValueError(f'{path}: type {dtype} is none of {[str(d) for d in DTYPES.values()]}')
  header, end = {'__metadata__': {'format': 'pt'}}, 0
  for name, shape in shapes.items():
    begin, end = end, end + math.prod(shape) * dtype.itemsize
    header[name] = {'dtype': label, 'shape': list(shape), 'data_offsets': [begin, end]}
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)  # so that the tensors begin at a multiple of 8 bytes
  with epath.Path(path).open('wb') as file:
    file.write(len(text).to_bytes(8, 'little') + text)
    for (name, shape), (given, values) in zip(shapes.items(), tensors, strict=True):
      if given != name or values.shape != tuple(shape):
        raise ValueError(f'{path}: {given} {values.shape} instead of {name} {tuple(shape)}')
      file.write(np.ascontiguousarray(values, dtype).reshape(-1).view(np.uint8).data)
