"""The programs of the sampler: B slots of one key/value cache, each with a row of its own length.

    extend        runs tokens that are given (prompt, instruction, forced answer) into some slots
    copy_prompts  gives slots the prompt of another one
    decode_block  samples the next tokens of rows that are at any place of any turn

A row's token lies at the slot of its position, without holes. So a row reads what it has filled,
up to one of a few lengths, and who sits beside it is of no account. A block of decoding writes one
column for all its rows, which are put behind each row's own at its end.

Slots, queries and indices of rows are those of each device: no key or value travels.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from score_jax.core.logits import project
from score_jax.core.sharding import constrain, partition_spec
from score_jax.model import cache as kv_cache
from score_jax.model.decode_params import output_head
from score_jax.model.decoder import Decoder
from score_jax.model.sampling import sample
from score_jax.rollout.layout import RolloutSpec

# A block of decoding ends once its ended rows have stood idle for so many steps of all its rows:
# to go on costs their slots, to stop costs a turn-round and the merge of the block.
_IDLE_STEPS = 1

_KV_AXES = {
  'k': ('batch', 'kv_heads', 'head_dim', 'length'),
  'v': ('batch', 'kv_heads', 'length', 'head_dim'),
}


@flax.struct.dataclass
class Slots:
  """What the programs take and give; donated.

  Attributes:
    cache: of each layer {'k': [B, M, H, C], 'v': [B, M, C, H]}.
    hidden: [B, D] hidden state of each row's last token, which the next one is drawn from.
    prompt_hidden: [B, D] that of its prompt's last token.
  """

  cache: tuple
  hidden: jax.Array
  prompt_hidden: jax.Array


@dataclasses.dataclass(frozen=True)
class BlockShape:
  """The static shape of a block of decoding; one compilation for each.

  Attributes:
    rows: of each device, that are decoded.
    length: slots of the cache that are read: no row may have more tokens.
    steps: the most tokens that a row samples.
  """

  rows: int
  length: int
  steps: int


@flax.struct.dataclass
class Inputs:
  """Tokens for some slots, R rows of each device.

  Attributes:
    slot: i32[R], each at most once unless `count` is 0.
    length: i32[R] tokens that the slot has.
    tokens: i32[R, T].
    count: i32[R] how many of them are real, from the left; 0 for none.
    is_prompt: bool[R] whether they end the prompt.
  """

  slot: jax.Array
  length: jax.Array
  tokens: jax.Array
  count: jax.Array
  is_prompt: jax.Array


@flax.struct.dataclass
class Draws:
  """Where the rows of a block of decoding are, R rows of each device.

  Attributes:
    slot: i32[R], each once.
    length: i32[R] tokens that the slot has.
    key: R keys of the episodes.
    turn: i32[R] counted from 0.
    sampled: i32[R] tokens of the turn so far.
    left: i32[R] tokens that its budget leaves; 0 for a row that rests.
  """

  slot: jax.Array
  length: jax.Array
  key: jax.Array
  turn: jax.Array
  sampled: jax.Array
  left: jax.Array


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
  return _place(Slots((empty,) * c.num_layers, hidden_BD, hidden_BD))


def _place(slots: Slots) -> Slots:
  """Pins slots to the mesh; each is wholly on one device but for its heads."""
  return Slots(
    cache=tuple(map(_place_kv, slots.cache)),
    hidden=constrain(slots.hidden, ('batch', None)),
    prompt_hidden=constrain(slots.prompt_hidden, ('batch', None)),
  )


def _place_kv(kv: dict[str, jax.Array]) -> dict[str, jax.Array]:
  return {x: constrain(kv[x], _KV_AXES[x]) for x in 'kv'}


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


def _take(cache: tuple, slot_R: jax.Array, length: int) -> tuple:
  """The first `length` tokens of some slots."""

  def take(cache, slot_R):
    def one(x, axis):
      sizes = [1, *x.shape[1:]]
      sizes[axis] = length
      return jax.vmap(lambda i: lax.dynamic_slice(x, (i, 0, 0, 0), sizes)[0])(slot_R)

    return [{'k': one(kv['k'], 3), 'v': one(kv['v'], 2)} for kv in cache]

  axes = [_KV_AXES] * len(cache)
  return tuple(_by_device(take, (axes, ('batch',)), axes)(list(cache), slot_R))


def _put(cache: tuple, new: tuple, slot_R: jax.Array, first_R: jax.Array) -> tuple:
  """Writes keys and values over those of some slots, from a token of each on."""

  def put(cache, new, slot_R, first_R):
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
  put = _by_device(put, (axes, axes, rows, rows), axes)
  return tuple(put(list(cache), list(new), slot_R, first_R))


def _put_rows(x_BD: jax.Array, new_RD: jax.Array, slot_R: jax.Array, is_meant_R: jax.Array):
  """Writes rows of a matrix, those that are meant."""

  def put(x_BD, new_RD, slot_R, is_meant_R):
    target_R = jnp.where(is_meant_R, slot_R, x_BD.shape[0])
    return x_BD.at[target_R].set(new_RD.astype(x_BD.dtype), mode='drop')

  wide, rows = ('batch', 'activation_embed'), ('batch',)
  return _by_device(put, (wide, wide, rows, rows), wide)(x_BD, new_RD, slot_R, is_meant_R)


def _take_rows(x_BD: jax.Array, slot_R: jax.Array) -> jax.Array:
  wide = ('batch', 'activation_embed')
  return _by_device(lambda x, slot: x[slot], (wide, ('batch',)), wide)(x_BD, slot_R)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(3,))
def extend(decoder: Decoder, length: int, params: dict, slots: Slots, inputs: Inputs) -> Slots:
  """Runs given tokens through the model, behind those that their slots have.

  Args:
    decoder: the model, unrolled.
    length: slots of the cache that are read: no row of `inputs` may have more tokens.
    params: from `decoding_params`.
    slots: donated; with room for T more tokens than an episode has.
    inputs: the tokens.

  Returns:
    The slots.
  """
  x, (R, T) = inputs, inputs.tokens.shape
  here_RT = x.length[:, None] + jnp.arange(T)[None]
  past_RL = jnp.broadcast_to(jnp.arange(length), (R, length))
  is_past_RTL = jnp.broadcast_to((past_RL < x.length[:, None])[:, None], (R, T, length))
  is_own_RTT = jnp.broadcast_to(jnp.tril(jnp.ones((T, T), bool)), (R, T, T))
  mask_RTS = jnp.concatenate([is_past_RTL, is_own_RTT], axis=-1)
  past = [(piece,) for piece in _take(slots.cache, x.slot, length)] if length else None
  hidden_RTD, _, kv = decoder.apply(
    {'params': params}, x.tokens, here_RT, mask_RTS, past, past_RL if length else None
  )
  last_R1 = jnp.maximum(x.count - 1, 0)[:, None]
  last_RD = jnp.take_along_axis(hidden_RTD, last_R1[..., None], axis=1)[:, 0]
  # What lies behind a row's last token is never read; nor is what a row without tokens writes,
  # behind all that an episode may have.
  end = kv_cache.num_slots(slots.cache[0]) - T
  first_R = jnp.where(x.count > 0, x.length, end)
  return _place(
    Slots(
      cache=_put(slots.cache, tuple(map(_place_kv, kv)), x.slot, first_R),
      hidden=_put_rows(slots.hidden, last_RD, x.slot, x.count > 0),
      prompt_hidden=_put_rows(slots.prompt_hidden, last_RD, x.slot, (x.count > 0) & x.is_prompt),
    )
  )


@functools.partial(jax.jit, static_argnums=(0,), donate_argnums=(1,))
def copy_prompts(
  prompt_tokens: int, slots: Slots, source_B: jax.Array, is_fresh_B: jax.Array
) -> Slots:
  """Gives each slot the prompt of another one of its device.

  Args:
    prompt_tokens: of the longest prompt.
    slots: donated.
    source_B: i32[B] whose; its own for a slot that keeps what it has.
    is_fresh_B: bool[B] slots whose row begins behind the prompt.

  Returns:
    The slots.
  """
  prompt_hidden = _take_rows(slots.prompt_hidden, source_B)
  prompts = _take(slots.cache, source_B, prompt_tokens)

  def put(cache, prompts):
    return [
      {
        'k': lax.dynamic_update_slice(kv['k'], new['k'], (0, 0, 0, 0)),
        'v': lax.dynamic_update_slice(kv['v'], new['v'], (0, 0, 0, 0)),
      }
      for kv, new in zip(cache, prompts, strict=True)
    ]

  return _place(
    Slots(
      cache=tuple(put(slots.cache, prompts)),
      hidden=jnp.where(is_fresh_B[:, None], prompt_hidden, slots.hidden),
      prompt_hidden=prompt_hidden,
    )
  )


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=(4,))
def decode_block(
  decoder: Decoder,
  spec: RolloutSpec,
  shape: BlockShape,
  params: dict,
  slots: Slots,
  draws: Draws,
  temperature: jax.Array,
) -> tuple[Slots, jax.Array, jax.Array, jax.Array]:
  """Samples tokens until rows that have ended stand idle for too long.

  Args:
    decoder: the model, unrolled.
    spec: ends of turn, top-k and top-p.
    shape: static.
    params: from `decoding_params`.
    slots: donated; with room for `shape.steps` more tokens than an episode has.
    draws: where each row is; with as many rows as there are slots, row i is slot i.
    temperature: f32[]; 0 is greedy.

  Returns:
    The slots; i32[R, steps] tokens and f32[R, steps] their log-probabilities in nats; i32[R] how
    many of them each row sampled, an end of turn included; i32[] steps that were made.
  """
  c, (R,) = decoder.config, draws.slot.shape
  is_all = R == slots.hidden.shape[0]
  head = output_head(c, params)
  keys_R = jax.vmap(jax.random.fold_in)(draws.key, draws.turn)

  def prefix():
    if is_all:
      return tuple(
        {'k': kv['k'][..., : shape.length], 'v': kv['v'][:, :, : shape.length]}
        for kv in slots.cache
      )
    return _take(slots.cache, draws.slot, shape.length)

  past, past_RL = prefix(), jnp.broadcast_to(jnp.arange(shape.length), (R, shape.length))
  block_RN = draws.length[:, None] + jnp.arange(shape.steps)[None]
  is_past_RL = past_RL < draws.length[:, None]
  positions_RS = jnp.concatenate([past_RL, block_RN], axis=1)
  was_live_R = draws.left > 0

  def keep_going(carry):
    step, is_live_R, idle, *_ = carry
    return (step < shape.steps) & jnp.any(is_live_R) & (idle < _IDLE_STEPS * R)

  def one_token(carry):
    step, is_live_R, idle, hidden_RD, block, tokens_RN, logp_RN, count_R = carry
    logits_RV = constrain(project(hidden_RD, head), ('batch', 'vocab'))
    key_R = jax.vmap(jax.random.fold_in)(keys_R, draws.sampled + step)
    token_R, logp_R = sample(logits_RV, key_R, temperature, spec.top_k, spec.top_p)
    is_filled_RN = jnp.broadcast_to(jnp.arange(shape.steps) <= step, block_RN.shape)
    mask_RS = jnp.concatenate([is_past_RL, is_filled_RN], axis=1)
    hidden_R1D, _, block = decoder.apply(
      {'params': params},
      token_R[:, None],
      (draws.length + step)[:, None],
      mask_RS[:, None],
      tuple(zip(past, block, strict=True)),
      positions_RS,
      step,
    )

    def write(x_RN, new_R):
      return lax.dynamic_update_slice_in_dim(x_RN, new_R[:, None], step, 1)

    ends_R = functools.reduce(jnp.logical_or, [token_R == i for i in spec.end_of_turn_ids])
    count_R = count_R + is_live_R
    is_live_R = is_live_R & ~ends_R & (draws.left > step + 1)
    idle = idle + jnp.sum(was_live_R & ~is_live_R)
    kept = (hidden_R1D[:, 0], block, write(tokens_RN, token_R), write(logp_RN, logp_R), count_R)
    return step + 1, is_live_R, idle, *kept

  empty_RNMH = jnp.zeros((R, shape.steps, c.num_kv_heads, c.head_dim), c.dtype)
  block = (_place_kv(kv_cache.in_order(empty_RNMH, empty_RNMH)),) * c.num_layers
  hidden_RD = slots.hidden if is_all else _take_rows(slots.hidden, draws.slot)
  results = (jnp.zeros(block_RN.shape, jnp.int32), jnp.zeros(block_RN.shape, jnp.float32))
  results = (*results, jnp.zeros_like(draws.left))
  carry = (jnp.int32(0), was_live_R, jnp.int32(0), hidden_RD, block, *results)
  steps, _, _, hidden_RD, block, tokens_RN, logp_RN, count_R = lax.while_loop(
    keep_going, one_token, carry
  )
  slots = Slots(
    cache=_put(slots.cache, block, draws.slot, draws.length),
    hidden=_put_rows(slots.hidden, hidden_RD, draws.slot, was_live_R),
    prompt_hidden=slots.prompt_hidden,
  )
  results = (constrain(tokens_RN, ('batch', None)), constrain(logp_RN, ('batch', None)))
  return _place(slots), *results, constrain(count_R, ('batch',)), steps
