"""Names, shapes and checksums of the arrays of a state, whatever pytree it is.

A checkpoint stores a state as nested dicts of arrays, named by the path to each leaf. The pytree
itself (dataclasses, named tuples, optimiser states) is never written: it comes from the code that
restores, so that a renamed class does not spoil old checkpoints, and a part can be read alone.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from score_jax.core import sharding
from score_jax.core.paths import Path, nest

_CHUNK = 1 << 20  # words hashed at once on the host: bounds the temporaries of a large array


def named_leaves(tree) -> dict[Path, Any]:
  """Lists the leaves of a pytree under their paths.

  Args:
    tree: containers (dicts, lists, tuples, dataclasses) of JAX or NumPy arrays, or of
      `jax.ShapeDtypeStruct`. Empty containers and None have no leaves.

  Returns:
    The leaves by path: dict keys, field names and list positions, as strings.

  Raises:
    ValueError: naming the leaf, if it is no such array; if two leaves have the same path.

  Example:
    >>> named_leaves({'w': np.zeros(2), 'opt': (np.ones(1), None)}).keys()
    dict_keys([('opt', '0'), ('w',)])
  """
  leaves = {}
  for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
    path = tuple(jax.tree_util.keystr((key,), simple=True) for key in keys)
    if not path or path in leaves or any('/' in key for key in path):
      raise ValueError(
        f'leaf "{leaf_name(path)}": each leaf of a state needs a path of its own; put a bare'
        ' array into a dict, use no "/" in keys, and no keys that read alike, such as 0 and "0"'
      )
    if not isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct, np.ndarray, np.generic)):
      raise ValueError(
        f'leaf "{leaf_name(path)}" is a {type(leaf).__name__}, not an array: make it one, or put'
        ' it into the metadata'
      )
    if _num_bytes_per_word(leaf.dtype) is None:
      raise ValueError(
        f'leaf "{leaf_name(path)}" has dtype {leaf.dtype}, which checkpoints do not hold: use'
        ' whole numbers or floats of 8 to 64 bits (of a random key its key data)'
      )
    leaves[path] = leaf
  return leaves


def leaf_name(path: Path) -> str:
  """Returns a leaf's path as people read it, such as "trainable/layers/attn/q"."""
  return '/'.join(path)


def describe(leaves: Mapping[Path, Any]) -> dict[str, dict[str, Any]]:
  """Returns shape and dtype of each leaf, as JSON can hold them.

  Args:
    leaves: arrays or `jax.ShapeDtypeStruct` by path.

  Example:
    >>> describe({('w', 'b'): np.zeros((2, 3), np.float32)})
    {'w/b': {'shape': [2, 3], 'dtype': 'float32'}}
  """
  return {
    leaf_name(path): {'shape': list(leaf.shape), 'dtype': np.dtype(leaf.dtype).name}
    for path, leaf in leaves.items()
  }


def host_tree(table: Mapping[str, Any], depth: int) -> dict[str, Any]:
  """Returns nested dicts that describe NumPy arrays, without the memory for them.

  Args:
    table: shape and dtype by leaf name, as `describe` gives them.
    depth: how many keys at the start of each name to leave out.

  Example:
    >>> host_tree({'a/b': {'shape': [2], 'dtype': 'int32'}}, depth=1)['b'].shape
    (2,)
  """
  return nest(
    (
      tuple(name.split('/'))[depth:],
      np.broadcast_to(np.zeros((), jnp.dtype(entry['dtype'])), entry['shape']),
    )
    for name, entry in table.items()
  )


def differences(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
  """Compares two results of `describe`.

  Args:
    saved: what a checkpoint holds; further entries beside shape and dtype are not looked at.
    wanted: what the program expects.

  Returns:
    One line for people per leaf that differs; [] if they agree.
  """
  lines = []
  for name in sorted(saved.keys() | wanted.keys()):
    if name not in saved:
      lines.append(f'{name}: not in the checkpoint, {_text(wanted[name])} in the program')
    elif name not in wanted:
      lines.append(f'{name}: {_text(saved[name])} in the checkpoint, not in the program')
    elif _text(saved[name]) != _text(wanted[name]):
      lines.append(
        f'{name}: {_text(saved[name])} in the checkpoint, {_text(wanted[name])} in the program'
      )
  return lines


def _text(entry: Mapping[str, Any]) -> str:
  return f'{entry["dtype"]}{list(entry["shape"])}'


def checksums(leaves: Mapping[Path, Any]) -> dict[str, int]:
  """Computes a checksum of each array where it lies, the same for every sharding.

  Each 32-bit word of the array is mixed with its position, and the results are added modulo
  2**32. Addition knows no order, so neither devices nor layout matter; a single changed word
  always changes the sum, any other change does so but for one case in 2**32.

  Args:
    leaves: JAX or NumPy arrays by path; with several processes every process must call this.

  Returns:
    A uint32 as a Python int by leaf name.

  Example:
    >>> x = np.arange(3.0, dtype=np.float32)
    >>> checksums({('x',): x}) == checksums({('x',): jnp.asarray(x)})
    True
  """
  # Each is fetched before the next one starts. A sum over devices that waits in a row of others can
  # wait for ever where CPUs of several processes are the devices: one process was seen here, and
  # the other one already behind it. An offloaded leaf also leaves its device first.
  return {
    leaf_name(path): int(
      _device_checksum(sharding.on_devices(leaf))
      if isinstance(leaf, jax.Array)
      else _host_checksum(np.asarray(leaf))
    )
    for path, leaf in leaves.items()
  }


def _num_bytes_per_word(dtype) -> int | None:
  """Returns the bytes of one number, or None for a dtype without plain bits of whole bytes."""
  if jnp.issubdtype(dtype, jax.dtypes.extended) or dtype.itemsize not in (1, 2, 4, 8):
    return None
  if dtype == np.bool_:
    return 1
  if jnp.issubdtype(dtype, jnp.integer):
    return dtype.itemsize if jnp.iinfo(dtype).bits == 8 * dtype.itemsize else None
  if jnp.issubdtype(dtype, jnp.floating):
    return dtype.itemsize if jnp.finfo(dtype).bits == 8 * dtype.itemsize else None
  return None


def _mix(word):
  """A bijection of 32-bit words that carries every input bit to every output bit."""
  word = (word ^ (word >> 16)) * np.uint32(0x7FEB352D)
  word = (word ^ (word >> 15)) * np.uint32(0x846CA68B)
  return word ^ (word >> 16)


@jax.jit
def _device_checksum(x: jax.Array) -> jax.Array:
  if x.dtype == jnp.bool_:
    x = x.astype(jnp.uint8)
  bits = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[x.dtype.itemsize]
  words = lax.bitcast_convert_type(x, bits).astype(jnp.uint32)  # 64 bits: [..., 2], low word first
  position = jnp.zeros(words.shape, jnp.uint32)
  for axis in range(words.ndim):
    stride = math.prod(words.shape[axis + 1 :]) % 2**32
    iota = lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    position = position + iota * np.uint32(stride)
  return jnp.sum(_mix(words ^ _mix(position + np.uint32(1))), dtype=jnp.uint32)


def _host_checksum(x: np.ndarray) -> np.uint32:
  num_bytes = _num_bytes_per_word(x.dtype)
  bits = np.uint32 if num_bytes == 8 else np.dtype(f'uint{8 * num_bytes}')
  words = np.ascontiguousarray(x).reshape(-1).view(bits)
  total = 0
  for start in range(0, words.size, _CHUNK):
    chunk = words[start : start + _CHUNK].astype(np.uint32)
    position = (start + np.arange(chunk.size, dtype=np.uint64)).astype(np.uint32)
    total += int(np.sum(_mix(chunk ^ _mix(position + np.uint32(1))), dtype=np.uint64))
  return np.uint32(total % 2**32)
