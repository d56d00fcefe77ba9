"""Prefill and decoding: the part of the sampler that runs the model and keeps its cache.

Keys and values lie in two pieces: a problem's prompt where several samples share it, and a row's
own slots, which are written in place. These grow by a block of a turn at a time: so a token reads
what is filled and the rest of its block, not all that is to come.
"""

import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from score_jax.core.logits import project
from score_jax.core.sharding import constrain
from score_jax.core.types import Episode
from score_jax.model import cache
from score_jax.model.attention import causal_mask
from score_jax.model.decoder import Decoder
from score_jax.model.sampling import sample
from score_jax.rollout.layout import RolloutSpec

# A turn is decoded in at most this many blocks, each a loop of its own to be compiled, and none
# shorter than this: an eighth of the budget is then read for nothing on average.
_MAX_BLOCKS, _MIN_BLOCK = 4, 64


@flax.struct.dataclass
class RolloutState:
  """What a segment takes and gives; donated.

  Attributes:
    episode: the tokens so far, in slots.
    prompt_cache: of each layer {'k': [P, M, H, S], 'v': [P, M, S, H]} of prompts that several rows
      share; () where none does.
    own_cache: of each layer the rows' own, of B rows and the slots so far that the prompt's cache
      has not; () where there are none yet.
    num_tokens: i32[B] real tokens so far.
    logits: f32[B, V] of each row's last real token.
  """

  episode: Episode
  prompt_cache: tuple
  own_cache: tuple
  num_tokens: jax.Array
  logits: jax.Array

  def pieces(self) -> tuple:
    """Of each layer the pieces that cover the slots so far."""
    return tuple(zip(*filter(None, (self.prompt_cache, self.own_cache)), strict=True))

  def first_own_slot(self) -> int:
    """The slot that the rows' own cache begins with."""
    return cache.num_slots(self.prompt_cache[0]) if self.prompt_cache else 0

  def with_more(self, kv: tuple) -> 'RolloutState':
    """Puts slots behind the rows' own."""
    own = tuple(map(cache.join, self.own_cache, kv)) if self.own_cache else kv
    return self.replace(own_cache=own)


def empty_state(decoder: Decoder, spec: RolloutSpec, num_rows: int) -> RolloutState:
  """The state of rows that have no token yet."""
  shape = (num_rows, spec.first_slot(spec.num_turns))
  episode = Episode(
    tokens=jnp.zeros(shape, jnp.int32),
    positions=jnp.zeros(shape, jnp.int32),
    is_token=jnp.zeros(shape, bool),
    turn=jnp.zeros(shape, jnp.int32),
    is_sampled=jnp.zeros(shape, bool),
    sampled_logp=jnp.zeros(shape, jnp.float32),
    is_truncated=jnp.zeros((num_rows, spec.num_turns), bool),
  )
  return RolloutState(
    episode=episode,
    prompt_cache=(),
    own_cache=(),
    num_tokens=jnp.zeros((num_rows,), jnp.int32),
    logits=jnp.zeros((num_rows, decoder.config.vocab_size), jnp.float32),
  )


def place(state: RolloutState) -> RolloutState:
  """Keeps rows where the batch's rows lie, and the cache split as the keys and values are."""
  return RolloutState(
    episode=jax.tree.map(lambda x: constrain(x, ('batch', None)), state.episode),
    prompt_cache=tuple(map(_place_kv, state.prompt_cache)),
    own_cache=tuple(map(_place_kv, state.own_cache)),
    num_tokens=constrain(state.num_tokens, ('batch',)),
    logits=constrain(state.logits, ('batch', 'vocab')),
  )


def _place_kv(kv: dict[str, jax.Array]) -> dict[str, jax.Array]:
  return {
    'k': constrain(kv['k'], ('batch', 'kv_heads', 'head_dim', 'length')),
    'v': constrain(kv['v'], ('batch', 'kv_heads', 'length', 'head_dim')),
  }


def append(
  decoder: Decoder,
  params: dict,
  state: RolloutState,
  tokens_BI: jax.Array,
  is_token_BI: jax.Array,
  slot: int | jax.Array,
  group: int = 1,
  in_place: bool = False,
) -> tuple[RolloutState, tuple[dict[str, jax.Array], ...]]:
  """Runs tokens through the model and writes them at `slot`; gives their keys and values back.

  Args:
    decoder: the model, unrolled.
    params: from `decoding_params`.
    state: the rows.
    tokens_BI: i32[B, I] new tokens of each row.
    is_token_BI: bool[B, I], False in holes.
    slot: i32[], the first of the I slots in which they come to lie.
    group: so many rows in a row have the same tokens, which are run once.
    in_place: whether the rows' own cache has the slots already.

  Returns:
    The state but for its caches, and of each layer {'k': [B / group, M, H, I], 'v': [B / group, M,
    I, H]}; if in place, the rows' own cache with them.
  """
  e = state.episode
  count_BI = jnp.cumsum(is_token_BI, axis=1)
  positions_BI = jnp.maximum(state.num_tokens[:, None] + count_BI - 1, 0)

  def write(x, new):
    return jax.lax.dynamic_update_slice_in_dim(x, new.astype(x.dtype), slot, 1)

  e = e.replace(
    tokens=write(e.tokens, tokens_BI),
    positions=write(e.positions, positions_BI),
    is_token=write(e.is_token, is_token_BI),
  )
  pieces = state.pieces()
  seen = slice(0, sum(map(cache.num_slots, pieces[0])) if pieces else 0)
  mask_BIS = causal_mask(positions_BI, e.positions[:, seen], e.is_token[:, seen])
  if not in_place:
    own_BII = causal_mask(positions_BI, positions_BI, is_token_BI)
    mask_BIS = jnp.concatenate([mask_BIS, own_BII], axis=-1)

  def once(x):
    return x.reshape(x.shape[0] // group, group, *x.shape[1:])[:, 0]

  hidden_PID, head, kv = decoder.apply(
    {'params': params},
    *map(once, (tokens_BI, positions_BI, mask_BIS)),
    pieces or None,
    once(e.positions[:, seen]),
    slot - state.first_own_slot() if in_place else None,
  )
  # The last real token is where the running count first reaches its total.
  last_P1 = jnp.argmax(once(count_BI), axis=1)[:, None]
  last_PD = jnp.take_along_axis(hidden_PID, last_P1[..., None], axis=1)[:, 0]
  logits_BV = jnp.repeat(project(last_PD, head), group, axis=0)
  has_token_B1 = count_BI[:, -1:] > 0
  state = state.replace(
    episode=e,
    num_tokens=state.num_tokens + count_BI[:, -1],
    logits=jnp.where(has_token_B1, logits_BV, state.logits),
  )
  return state, kv


def is_end(tokens: jax.Array, spec: RolloutSpec) -> jax.Array:
  """Which tokens end a turn."""
  return functools.reduce(jnp.logical_or, [tokens == i for i in spec.end_of_turn_ids])


def _blocks(budget: int) -> list[int]:
  """Cuts a turn into blocks.

  Example:
    >>> _blocks(300), _blocks(1000)
    ([75, 75, 75, 75], [250, 250, 250, 250])
  """
  size = max(_MIN_BLOCK, -(-budget // _MAX_BLOCKS))
  return [min(size, budget - start) for start in range(0, budget, size)]


def decode(
  decoder: Decoder,
  spec: RolloutSpec,
  params: dict,
  state: RolloutState,
  keys_B: jax.Array,
  temperature: jax.Array,
  turn: int,
) -> RolloutState:
  """Samples one turn of every row.

  Args:
    decoder: the model, unrolled.
    spec: budgets and ends of turn.
    params: from `decoding_params`.
    state: the rows, prefilled.
    keys_B: B keys of this turn.
    temperature: f32[]; 0 is greedy.
    turn: which one, counted from 0.

  Returns:
    The state, its own cache grown by the turn's budget.
  """
  first = start = spec.first_slot(turn) + spec.input_slots(turn)
  is_done_B = jnp.zeros(state.num_tokens.shape, bool)
  for size in _blocks(spec.turn_tokens[turn]):
    draw = functools.partial(_draw, spec, keys_B, temperature, start - first)
    state, is_done_B = _decode_block(decoder, params, state, is_done_B, draw, start, size, turn)
    start += size
  is_truncated = state.episode.is_truncated.at[:, turn].set(~is_done_B)
  return state.replace(episode=state.episode.replace(is_truncated=is_truncated))


def _draw(
  spec: RolloutSpec,
  keys_B: jax.Array,
  temperature: jax.Array,
  before: int,
  logits_BV: jax.Array,
  step: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Draws the tokens of a block's step, which `before` tokens of the turn precede.

  Returns:
    i32[B] tokens, f32[B] their log-probabilities in nats, bool[B] which of them end the turn.
  """
  keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, before + step)
  token_B, logp_B = sample(logits_BV, keys_B, temperature, spec.top_k, spec.top_p)
  return token_B, logp_B, is_end(token_B, spec)


def _decode_block(
  decoder: Decoder,
  params: dict,
  state: RolloutState,
  is_done_B: jax.Array,
  draw: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]],
  start: int,
  size: int,
  turn: int,
) -> tuple[RolloutState, jax.Array]:
  """Samples up to `size` tokens of every row that is not done, into the slots from `start`.

  Args:
    decoder: the model, unrolled.
    params: from `decoding_params`.
    state: the rows, their own cache filled up to `start`.
    is_done_B: bool[B] rows that have ended their turn.
    draw: (f32[B, V] logits, i32[] step of the block) -> what `_draw` returns.
    start: the block's first slot.
    size: slots of the block.
    turn: which one, counted from 0.

  Returns:
    The state, its own cache grown by `size` slots, and bool[B] rows that are done now.
  """

  def keep_going(carry):
    step, is_done_B, _ = carry
    # Slots are left in the block,
    return (step < size) & (
      # and some row has not ended its turn.
      ~jnp.all(is_done_B)
    )

  def one_token(carry):
    step, is_done_B, state = carry
    token_B, logp_B, is_end_B = draw(state.logits, step)
    is_sampled_B1, slot = ~is_done_B[:, None], start + step
    state, own = append(
      decoder, params, state, token_B[:, None], is_sampled_B1, slot, in_place=True
    )
    e = state.episode

    def write(x, new):
      return jax.lax.dynamic_update_slice_in_dim(x, new, slot, 1)

    episode = e.replace(
      turn=write(e.turn, jnp.where(is_sampled_B1, turn + 1, 0)),
      is_sampled=write(e.is_sampled, is_sampled_B1),
      sampled_logp=write(e.sampled_logp, jnp.where(is_sampled_B1, logp_B[:, None], 0.0)),
    )
    return step + 1, is_done_B | is_end_B, state.replace(episode=episode, own_cache=own)

  c, B = decoder.config, is_done_B.shape[0]
  empty_BIMH = jnp.zeros((B, size, c.num_kv_heads, c.head_dim), c.dtype)
  block = (_place_kv(cache.in_order(empty_BIMH, empty_BIMH)),) * c.num_layers
  carry = (jnp.int32(0), is_done_B, state.with_more(block))
  _, is_done_B, state = jax.lax.while_loop(keep_going, one_token, carry)
  return state, is_done_B


def prefill(
  decoder: Decoder,
  params: dict,
  state: RolloutState,
  tokens_BI: jax.Array,
  is_token_BI: jax.Array,
  slot: int,
) -> RolloutState:
  """Appends tokens to every row, keys and values too; arguments as for `append`."""
  state, kv = append(decoder, params, state, tokens_BI, is_token_BI, slot)
  return state.with_more(kv)
