"""The sampler: K turns over a whole batch, in one key/value cache, from token ids to token ids.

1. Prefill the prompt; only the last token's logits are made.
2. Decode turn 1 in a `while_loop` until every row has ended or the turn's budget is spent.
3. Prefill the *instruction* (and, first, the end of turn that a cut answer still owes) into the
   same cache.
4. Decode turn 2 in the same way; more turns are steps 3 and 4 again.

Slots, with the budget of each turn (holes where a row is short):

    | prompt | y1 ........ | eot? instruction | y2 ........ |

One prefill with its decoding is one jitted segment; the state is donated from one to the next.
Between segments lies the host, where grading of the turn before can begin.
"""

import functools
from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp

from score_jax.core.logits import project
from score_jax.core.sharding import constrain
from score_jax.core.types import Episode
from score_jax.model.attention import causal_mask
from score_jax.model.decoder import Decoder
from score_jax.model.sampling import sample
from score_jax.procedures.layout import RolloutSpec


@flax.struct.dataclass
class RolloutState:
  """What a segment takes and gives; donated.

  Attributes:
    episode: the tokens so far, in slots.
    cache: {'k', 'v'} of [L, B, T, M, H].
    num_tokens: i32[B] real tokens so far.
    logits: f32[B, V] of each row's last real token.
  """

  episode: Episode
  cache: dict
  num_tokens: jax.Array
  logits: jax.Array


def _init_state(decoder: Decoder, spec: RolloutSpec, num_rows: int) -> RolloutState:
  c = decoder.config
  shape = (num_rows, spec.first_slot(spec.num_turns))
  cache_shape = (c.num_layers, *shape, c.num_kv_heads, c.head_dim)
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
    cache={name: jnp.zeros(cache_shape, c.dtype) for name in 'kv'},
    num_tokens=jnp.zeros((num_rows,), jnp.int32),
    logits=jnp.zeros((num_rows, c.vocab_size), jnp.float32),
  )


def _place(state: RolloutState) -> RolloutState:
  """Keeps rows where the batch's rows lie, and the cache split as the keys and values are."""

  def split(x_LBTMH):
    return constrain(x_LBTMH, ('layers', 'batch', 'length', 'kv_heads', 'head_dim'))

  return RolloutState(
    episode=jax.tree.map(lambda x: constrain(x, ('batch', None)), state.episode),
    cache=jax.tree.map(split, state.cache),
    num_tokens=constrain(state.num_tokens, ('batch',)),
    logits=constrain(state.logits, ('batch', 'vocab')),
  )


def _append(decoder, params, state, tokens_BI, is_token_BI, slot, num_slots) -> RolloutState:
  """Runs tokens through the model and writes them, their keys and values at `slot`.

  Only the first `num_slots` (static) slots of the cache are read.
  """
  e = state.episode
  count_BI = jnp.cumsum(is_token_BI, axis=1)
  positions_BI = jnp.maximum(state.num_tokens[:, None] + count_BI - 1, 0)
  mask_BIS = jnp.concatenate(
    [
      causal_mask(positions_BI, e.positions[:, :num_slots], e.is_token[:, :num_slots]),
      causal_mask(positions_BI, positions_BI, is_token_BI),
    ],
    axis=-1,
  )
  cache = {name: x[:, :, :num_slots] for name, x in state.cache.items()}
  hidden_BID, head, kv = decoder.apply(
    {'params': params},
    tokens_BI,
    positions_BI,
    mask_BIS,
    cache if num_slots else None,
    e.positions[:, :num_slots],
  )
  # The last real token is where the running count first reaches its total.
  last_B1 = jnp.argmax(count_BI, axis=1)[:, None]
  last_BD = jnp.take_along_axis(hidden_BID, last_B1[..., None], axis=1)[:, 0]
  has_token_B1 = count_BI[:, -1:] > 0

  def write(x, new, axis):
    return jax.lax.dynamic_update_slice_in_dim(x, new.astype(x.dtype), slot, axis)

  return RolloutState(
    episode=e.replace(
      tokens=write(e.tokens, tokens_BI, 1),
      positions=write(e.positions, positions_BI, 1),
      is_token=write(e.is_token, is_token_BI, 1),
    ),
    cache={name: write(state.cache[name], kv[name], 2) for name in kv},
    num_tokens=state.num_tokens + count_BI[:, -1],
    logits=jnp.where(has_token_B1, project(last_BD, head), state.logits),
  )


def _is_end(tokens: jax.Array, spec: RolloutSpec) -> jax.Array:
  return functools.reduce(jnp.logical_or, [tokens == i for i in spec.end_of_turn_ids])


def _decode(decoder, spec, params, state, keys_B, temperature, turn) -> RolloutState:
  """Samples one turn of every row."""
  first = spec.first_slot(turn) + spec.input_slots(turn)
  budget = spec.turn_tokens[turn]

  def keep_going(carry):
    step, is_done_B, _ = carry
    # Tokens are left in the budget,
    return (step < budget) & (
      # and some row has not ended its turn.
      ~jnp.all(is_done_B)
    )

  def one_token(carry):
    step, is_done_B, state = carry
    token_keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, step)
    token_B, logp_B = sample(state.logits, token_keys_B, temperature, spec.top_k, spec.top_p)
    is_sampled_B1 = ~is_done_B[:, None]
    slot = first + step
    state = _append(decoder, params, state, token_B[:, None], is_sampled_B1, slot, first + budget)
    e = state.episode

    def write(x, new_B1):
      return jax.lax.dynamic_update_slice_in_dim(x, new_B1.astype(x.dtype), slot, 1)

    episode = e.replace(
      turn=write(e.turn, jnp.where(is_sampled_B1, turn + 1, 0)),
      is_sampled=write(e.is_sampled, is_sampled_B1),
      sampled_logp=write(e.sampled_logp, jnp.where(is_sampled_B1, logp_B[:, None], 0.0)),
    )
    is_done_B = is_done_B | _is_end(token_B, spec)
    return step + 1, is_done_B, state.replace(episode=episode)

  is_done_B = jnp.zeros(state.num_tokens.shape, bool)
  _, is_done_B, state = jax.lax.while_loop(keep_going, one_token, (jnp.int32(0), is_done_B, state))
  is_truncated = state.episode.is_truncated.at[:, turn].set(~is_done_B)
  return state.replace(episode=state.episode.replace(is_truncated=is_truncated))


def _followup(spec: RolloutSpec, state: RolloutState, turn: int):
  """Token ids between two answers: the end of turn that a cut answer owes, the instruction."""
  owes_eot_B1 = state.episode.is_truncated[:, turn - 1 : turn]
  ids_I = jnp.asarray(spec.followup_ids[turn - 1], jnp.int32)
  ids_BI = jnp.broadcast_to(ids_I, (owes_eot_B1.shape[0], ids_I.shape[0]))
  eot_B1 = jnp.full(owes_eot_B1.shape, spec.end_of_turn_ids[0], jnp.int32)
  is_token_BI = jnp.concatenate([owes_eot_B1, jnp.ones(ids_BI.shape, bool)], axis=1)
  return jnp.concatenate([eot_B1, ids_BI], axis=1), is_token_BI


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _first_segment(decoder, spec, given, params, prompt_BT, is_prompt_BT, turn_inputs):
  state = _place(_init_state(decoder, spec, prompt_BT.shape[0]))
  state = _append(decoder, params, state, prompt_BT, is_prompt_BT, 0, 0)
  return _place(_answer(decoder, spec, given, params, state, turn_inputs, 0))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=(5,))
def _next_segment(decoder, spec, turn, given, params, state, turn_inputs):
  tokens_BI, is_token_BI = _followup(spec, state, turn)
  slot = spec.first_slot(turn)
  state = _append(decoder, params, state, tokens_BI, is_token_BI, slot, slot)
  return _place(_answer(decoder, spec, given, params, state, turn_inputs, turn))


def _answer(decoder, spec, given, params, state, turn_inputs, turn) -> RolloutState:
  if not given:
    keys_B, temperature = turn_inputs
    keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, turn)
    return _decode(decoder, spec, params, state, keys_B, temperature, turn)
  tokens_BI, is_token_BI = turn_inputs
  slot = spec.first_slot(turn) + spec.input_slots(turn)
  state = _append(decoder, params, state, tokens_BI, is_token_BI, slot, slot)
  e = state.episode
  turn_BI = jnp.where(is_token_BI, turn + 1, 0)
  turn_BT = jax.lax.dynamic_update_slice_in_dim(e.turn, turn_BI, slot, 1)
  ends_B = jnp.any(_is_end(tokens_BI, spec) & is_token_BI, axis=1)
  is_truncated = e.is_truncated.at[:, turn].set(~ends_B)
  return state.replace(episode=e.replace(turn=turn_BT, is_truncated=is_truncated))


def rollout(
  decoder: Decoder,
  spec: RolloutSpec,
  params: dict,
  prompt_BT: jax.Array,
  is_prompt_BT: jax.Array,
  keys_B: jax.Array,
  temperature: float,
  given: Mapping[int, tuple[jax.Array, jax.Array]] | None = None,
  after_turn: Callable[[int, Episode], None] | None = None,
) -> Episode:
  """Samples episodes of K turns.

  Args:
    decoder: the model.
    spec: budgets, instructions, ends of turn.
    params: the policy's parameters.
    prompt_BT: i32[B, prompt_tokens].
    is_prompt_BT: bool[B, prompt_tokens]; holes may lie anywhere.
    keys_B: from `episode_keys`.
    temperature: 0 is greedy.
    given: answers that are not sampled, by turn: i32 and bool [B, turn_tokens[turn]] (base-model
      first attempts, a fixed set of first answers, a program to repair). They are context: never
      marked as sampled.
    after_turn: called with the turn and the episode so far while the device goes on; to read is to
      wait for that turn.

  Returns:
    The episode, in slots.

  Raises:
    ValueError: if an array's shape or a turn does not fit the spec, or for a temperature below 0.
  """
  given = given or {}
  B = prompt_BT.shape[0]
  if prompt_BT.shape != (B, spec.prompt_tokens) or is_prompt_BT.shape != prompt_BT.shape:
    raise ValueError(f'prompts of shape {prompt_BT.shape} for {spec.prompt_tokens} prompt slots')
  if temperature < 0:
    raise ValueError(f'temperature={temperature} must not be below 0')
  for turn, (tokens, is_token) in given.items():
    if not 0 <= turn < spec.num_turns:
      raise ValueError(
        f'given answers of turn {turn}; the episode has turns 0 to {spec.num_turns - 1}'
      )
    shape = (B, spec.turn_tokens[turn])
    if tokens.shape != shape or is_token.shape != shape:
      raise ValueError(f'given answers of turn {turn}: shape {tokens.shape}, expected {shape}')
  sampled = (keys_B, jnp.float32(temperature))
  state = _first_segment(
    decoder, spec, 0 in given, params, prompt_BT, is_prompt_BT, given.get(0, sampled)
  )
  for turn in range(1, spec.num_turns):
    if after_turn is not None:
      # A copy: the state itself is donated to the next segment.
      after_turn(turn - 1, jax.tree.map(jnp.copy, state.episode))
    state = _next_segment(
      decoder, spec, turn, turn in given, params, state, given.get(turn, sampled)
    )
  if after_turn is not None:
    after_turn(spec.num_turns - 1, state.episode)
  return state.episode


def compile_segments(
  decoder: Decoder,
  spec: RolloutSpec,
  params: dict,
  prompt_BT: jax.ShapeDtypeStruct,
  is_prompt_BT: jax.ShapeDtypeStruct,
  keys_B: jax.ShapeDtypeStruct,
) -> list[jax.stages.Compiled]:
  """Compiles what `rollout` would run, without running it.

  Args:
    decoder: the model.
    spec: budgets, instructions, ends of turn.
    params: shapes and shardings of the policy's parameters.
    prompt_BT: i32[B, prompt_tokens] with its sharding, and so on, as for `rollout`.
    is_prompt_BT: bool[B, prompt_tokens].
    keys_B: keys.

  Returns:
    The program of each turn.
  """
  sampled = (keys_B, jax.ShapeDtypeStruct((), jnp.float32))
  arguments = (params, prompt_BT, is_prompt_BT, sampled)
  lowered = _first_segment.lower(decoder, spec, False, *arguments)
  programs = [lowered.compile()]
  for turn in range(1, spec.num_turns):
    state = jax.tree.map(
      lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
      lowered.out_info,
      programs[-1].output_shardings,
    )
    lowered = _next_segment.lower(decoder, spec, turn, False, params, state, sampled)
    programs.append(lowered.compile())
  return programs
