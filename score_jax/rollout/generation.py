"""The programs of the sampler, which run the model on some of the slots or on all of them.

    extend        runs tokens that are given (prompt, instruction, forced answer) into some slots
    copy_prompts  gives slots the prompt of another one
    decode_block  samples the next tokens of rows that are at any place of any turn

A block of decoding writes one column for all its rows, which are put behind each row's own at its
end: so a token costs no scattered write.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from score_jax.core.logits import project
from score_jax.core.sharding import constrain
from score_jax.model import cache as kv_cache
from score_jax.model.decode_params import output_head
from score_jax.model.decoder import Decoder
from score_jax.model.sampling import sample
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.sizes import BlockShape
from score_jax.rollout.slots import Slots, place, place_kv, put, put_rows, take, take_rows

# A block of decoding ends once its ended rows have stood idle for so many steps of all its rows:
# to go on costs their slots, to stop costs a turn-round and the merge of the block.
IDLE_STEPS = 1


@flax.struct.dataclass
class Inputs:
  """Tokens for some slots: R rows, those of each device in order, a slot counted within its own.

  Attributes:
    slot: i32[R], each at most once unless `count` is 0.
    length: i32[R] tokens that the slot has.
    tokens: i32[R, T].
    count: i32[R] how many of them are real, from the left; 0 for none.
    is_prompt: bool[R] whether they are of the prompt, whose last state is kept.
  """

  slot: jax.Array
  length: jax.Array
  tokens: jax.Array
  count: jax.Array
  is_prompt: jax.Array


@flax.struct.dataclass
class Draws:
  """Where the R rows of a block of decoding are, those of each device in order.

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


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(3,))
def extend(decoder: Decoder, length: int, params: dict, slots: Slots, inputs: Inputs) -> Slots:
  """Runs given tokens through the model, behind those that their slots have.

  Args:
    decoder: the model, unrolled.
    length: tokens of each slot that are read: no row of `inputs` may have more.
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
  past = [(piece,) for piece in take(slots.cache, x.slot, length)] if length else None
  hidden_RTD, _, kv = decoder.apply(
    {'params': params}, x.tokens, here_RT, mask_RTS, past, past_RL if length else None
  )
  last_R1 = jnp.maximum(x.count - 1, 0)[:, None]
  last_RD = jnp.take_along_axis(hidden_RTD, last_R1[..., None], axis=1)[:, 0]
  # What lies behind a row's last token is never read; nor is what a row without tokens writes,
  # behind all that an episode may have.
  end = kv_cache.num_slots(slots.cache[0]) - T
  first_R = jnp.where(x.count > 0, x.length, end)
  return place(
    Slots(
      cache=put(slots.cache, tuple(map(place_kv, kv)), x.slot, first_R),
      hidden=put_rows(slots.hidden, last_RD, x.slot, x.count > 0),
      prompt_hidden=put_rows(slots.prompt_hidden, last_RD, x.slot, (x.count > 0) & x.is_prompt),
    )
  )


@functools.partial(jax.jit, static_argnums=(0,), donate_argnums=(1,))
def copy_prompts(
  prompt_tokens: int, slots: Slots, source_B: jax.Array, is_fresh_B: jax.Array
) -> Slots:
  """Gives each slot the prompt of another one of its device.

  Args:
    prompt_tokens: the budget of a prompt: so many are copied.
    slots: donated.
    source_B: i32[B] whose; its own for a slot that keeps what it has.
    is_fresh_B: bool[B] slots whose row begins behind the prompt.

  Returns:
    The slots.
  """
  prompt_hidden = take_rows(slots.prompt_hidden, source_B)
  prompts = take(slots.cache, source_B, prompt_tokens)

  def put(cache, prompts):
    return [
      {
        'k': lax.dynamic_update_slice(kv['k'], new['k'], (0, 0, 0, 0)),
        'v': lax.dynamic_update_slice(kv['v'], new['v'], (0, 0, 0, 0)),
      }
      for kv, new in zip(cache, prompts, strict=True)
    ]

  return place(
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
  """Samples up to `shape.steps` tokens, or until ended rows have stood idle for too long.

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
  head = output_head(c, params)
  keys_R = jax.vmap(jax.random.fold_in)(draws.key, draws.turn)
  past, past_RL = _past(slots, draws.slot, shape.length)
  block_RN = draws.length[:, None] + jnp.arange(shape.steps)[None]
  is_past_RL = past_RL < draws.length[:, None]
  positions_RS = jnp.concatenate([past_RL, block_RN], axis=1)
  was_live_R = draws.left > 0

  def keep_going(carry):
    step, is_live_R, idle, *_ = carry
    return (step < shape.steps) & jnp.any(is_live_R) & (idle < IDLE_STEPS * R)

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
    # A row that has ended keeps the state of its last token, whatever is computed beside it.
    hidden_RD = jnp.where(is_live_R[:, None], hidden_R1D[:, 0], hidden_RD)
    count_R = count_R + is_live_R
    is_live_R = is_live_R & ~ends_R & (draws.left > step + 1)
    idle = idle + jnp.sum(was_live_R & ~is_live_R)
    kept = (hidden_RD, block, write(tokens_RN, token_R), write(logp_RN, logp_R), count_R)
    return step + 1, is_live_R, idle, *kept

  empty_RNMH = jnp.zeros((R, shape.steps, c.num_kv_heads, c.head_dim), c.dtype)
  block = (place_kv(kv_cache.in_order(empty_RNMH, empty_RNMH)),) * c.num_layers
  hidden_RD = take_rows(slots.hidden, draws.slot)
  results = (jnp.zeros(block_RN.shape, jnp.int32), jnp.zeros(block_RN.shape, jnp.float32))
  results = (*results, jnp.zeros_like(draws.left))
  carry = (jnp.int32(0), was_live_R, jnp.int32(0), hidden_RD, block, *results)
  steps, _, _, hidden_RD, block, tokens_RN, logp_RN, count_R = lax.while_loop(
    keep_going, one_token, carry
  )
  slots = Slots(
    cache=put(slots.cache, block, draws.slot, draws.length),
    hidden=put_rows(slots.hidden, hidden_RD, draws.slot, was_live_R),
    prompt_hidden=slots.prompt_hidden,
  )
  results = (constrain(tokens_RN, ('batch', None)), constrain(logp_RN, ('batch', None)))
  return place(slots), *results, constrain(count_R, ('batch',)), steps


def _past(slots: Slots, slot_R: jax.Array, length: int) -> tuple[tuple, jax.Array]:
  """What a block reads of its rows, gathered once for all its tokens; i32[R, length] positions."""
  past_RL = jnp.broadcast_to(jnp.arange(length), (slot_R.shape[0], length))
  if slot_R.shape[0] < slots.hidden.shape[0]:
    return take(slots.cache, slot_R, length), past_RL
  return tuple(
    {'k': kv['k'][..., :length], 'v': kv['v'][:, :, :length]} for kv in slots.cache
  ), past_RL
