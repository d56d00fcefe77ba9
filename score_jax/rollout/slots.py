"""B slots of one key/value cache, each with a row of its own length.

A row's token lies at the slot's place of its position, without holes. So a row reads what it has
filled, up to one of a few lengths, and who sits beside it is of no account. Slots, and numbers of
slots, are those of each device: no key or value travels.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from score_jax.core.sharding import constrain, partition_spec
from score_jax.model import cache as kv_cache
from score_jax.model.decoder import Decoder

_KV_AXES = {
  'k': ('batch', 'kv_heads', 'head_dim', 'length'),
  'v': ('batch', 'kv_heads', 'length', 'head_dim'),
}


@flax.struct.dataclass
class Slots:
  """What the programs take and give; donated.

  All in the compute type: B slots of C tokens, M heads of H numbers.

  Attributes:
    cache: of each layer {'k': [B, M, H, C], 'v': [B, M, C, H]}.
    hidden: [B, D] hidden state of each row's last token, which the next one is drawn from.
    prompt_hidden: [B, D] that of its prompt's last token.
  """

  cache: tuple
  hidden: jax.Array
  prompt_hidden: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def empty_slots(decoder: Decoder, num_slots: int, capacity: int) -> Slots:
  """Slots that no row has.

  Args:
    decoder: the model.
    num_slots: B, of all devices.
    capacity: C, tokens of a slot.
  """
  c = decoder.config
  zero_BCMH = jnp.zeros((num_slots, capacity, c.num_kv_heads, c.head_dim), c.dtype)
  hidden_BD = jnp.zeros((num_slots, c.embed_dim), c.dtype)
  empty = kv_cache.in_order(zero_BCMH, zero_BCMH)
  return place(Slots((empty,) * c.num_layers, hidden_BD, hidden_BD))


def place(slots: Slots) -> Slots:
  """Pins slots to the mesh; each is wholly on one device but for its heads."""
  return Slots(
    cache=tuple(map(place_kv, slots.cache)),
    hidden=constrain(slots.hidden, ('batch', None)),
    prompt_hidden=constrain(slots.prompt_hidden, ('batch', None)),
  )


def place_kv(kv: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """Pins a layer's keys and values to the mesh."""
  return {
    'k': constrain(kv['k'], ('batch', 'kv_heads', 'head_dim', 'length')),
    'v': constrain(kv['v'], ('batch', 'kv_heads', 'length', 'head_dim')),
  }


def _by_device(function, in_axes, out_axes):
  """Lets each device run a function on its own rows."""
  if jax.sharding.get_abstract_mesh().empty:
    return function

  def is_axes(x):
    return isinstance(x, tuple) and isinstance(x[0], str)

  def specs(axes):
    return jax.tree.map(partition_spec, axes, is_leaf=is_axes)

  return jax.shard_map(
    function, in_specs=specs(in_axes), out_specs=specs(out_axes), check_vma=False
  )


def take(cache: tuple, slot_R: jax.Array, length: int) -> tuple:
  """Gathers keys and values.

  Args:
    cache: of each layer {'k': [B, M, H, C], 'v': [B, M, C, H]}.
    slot_R: i32[R] which slots.
    length: how many of their tokens, from the first on.

  Returns:
    Of each layer {'k': [R, M, H, length], 'v': [R, M, length, H]}.
  """

  def local(cache, slot_R):
    def one(x, axis):
      sizes = [1, *x.shape[1:]]
      sizes[axis] = length
      return jax.vmap(lambda i: lax.dynamic_slice(x, (i, 0, 0, 0), sizes)[0])(slot_R)

    return [{'k': one(kv['k'], 3), 'v': one(kv['v'], 2)} for kv in cache]

  axes = [_KV_AXES] * len(cache)
  return tuple(_by_device(local, (axes, ('batch',)), axes)(list(cache), slot_R))


def put(cache: tuple, new: tuple, slot_R: jax.Array, first_R: jax.Array) -> tuple:
  """Writes keys and values over those of some slots, one slot after the other.

  Args:
    cache: as for `take`.
    new: of each layer {'k': [R, M, H, I], 'v': [R, M, I, H]}.
    slot_R: i32[R] which slots.
    first_R: i32[R] the token of each from which they are written; the I of them must fit.

  Returns:
    The cache.
  """

  def local(cache, new, slot_R, first_R):
    def one(i, cache):
      at, row = (slot_R[i], first_R[i]), [{x: kv[x][i][None] for x in 'kv'} for kv in new]
      return [
        {
          'k': lax.dynamic_update_slice(kv['k'], part['k'], (at[0], 0, 0, at[1])),
          'v': lax.dynamic_update_slice(kv['v'], part['v'], (at[0], 0, at[1], 0)),
        }
        for kv, part in zip(cache, row, strict=True)
      ]

    return lax.fori_loop(0, slot_R.shape[0], one, cache)

  axes, rows = [_KV_AXES] * len(cache), ('batch',)
  local = _by_device(local, (axes, axes, rows, rows), axes)
  return tuple(local(list(cache), list(new), slot_R, first_R))


def put_rows(x_BD: jax.Array, new_RD: jax.Array, slot_R: jax.Array, is_meant_R: jax.Array):
  """Writes those rows of new_RD that are meant over rows `slot_R` of a matrix."""

  def local(x_BD, new_RD, slot_R, is_meant_R):
    target_R = jnp.where(is_meant_R, slot_R, x_BD.shape[0])
    return x_BD.at[target_R].set(new_RD.astype(x_BD.dtype), mode='drop')

  wide, rows = ('batch', 'activation_embed'), ('batch',)
  return _by_device(local, (wide, wide, rows, rows), wide)(x_BD, new_RD, slot_R, is_meant_R)


def take_rows(x_BD: jax.Array, slot_R: jax.Array) -> jax.Array:
  """Rows of a matrix, [R, D]."""
  wide = ('batch', 'activation_embed')
  return _by_device(lambda x, slot: x[slot], (wide, ('batch',)), wide)(x_BD, slot_R)
