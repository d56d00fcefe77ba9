"""A piece of the key/value cache: {'k': [B, M, H, S], 'v': [B, M, S, H]}, of one layer.

So the products of a token with them read row after row of memory; in another order every step of
decoding would begin with a transpose of the whole cache. A stack of layers has an axis before.
"""

import jax
import jax.numpy as jnp

# Where the slots lie, counted from the last axis.
_SLOT_AXIS = {'k': -1, 'v': -2}


def in_order(k_BTMH: jax.Array, v_BTMH: jax.Array) -> dict[str, jax.Array]:
  """Makes a piece.

  Args:
    k_BTMH: [B, T, M, H] keys.
    v_BTMH: [B, T, M, H] values.

  Returns:
    The piece, of T slots.
  """
  return {'k': jnp.transpose(k_BTMH, (0, 2, 3, 1)), 'v': jnp.swapaxes(v_BTMH, 1, 2)}


def num_slots(piece: dict[str, jax.Array]) -> int:
  """Slots of a piece."""
  return piece['k'].shape[_SLOT_AXIS['k']]


def join(first: dict[str, jax.Array], second: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """Puts one piece's slots behind another's."""
  return {x: jnp.concatenate([first[x], second[x]], axis=_SLOT_AXIS[x]) for x in 'kv'}


def write(piece: dict[str, jax.Array], new: dict[str, jax.Array], slot) -> dict[str, jax.Array]:
  """Writes a piece over slots of a longer one.

  Args:
    piece: the longer one.
    new: what is written.
    slot: i32[], where its first slot comes to lie.

  Returns:
    The longer piece.
  """

  def update(name):
    x, axis = piece[name], _SLOT_AXIS[name]
    return jax.lax.dynamic_update_slice_in_dim(x, new[name].astype(x.dtype), slot, axis)

  return {name: update(name) for name in 'kv'}
