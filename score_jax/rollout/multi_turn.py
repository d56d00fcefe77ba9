"""The sampler: K turns over a whole batch, in one key/value cache, from token ids to token ids.

1. Prefill each problem's prompt once; only the last token's logits are made.
2. Decode turn 1 in a `while_loop` until every row has ended or the turn's budget is spent.
3. Prefill the *instruction* (and, first, the end of turn that a cut answer still needs).
4. Decode turn 2 in the same way; more turns are steps 3 and 4 again.

Slots, with the budget of each turn (holes where a row is short):

    | prompt | y1 ........ | eot? instruction | y2 ........ |

One prefill with its decoding is one jitted segment; the state is donated from one to the next.
Between segments lies the host, where grading of the turn before can begin.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from score_jax.core.sharding import divides
from score_jax.core.types import Episode
from score_jax.model.decode_params import decoding_params, unrolled
from score_jax.model.decoder import Decoder
from score_jax.rollout.generation import (
  RolloutState,
  append,
  decode,
  empty_state,
  is_end,
  place,
  prefill,
)
from score_jax.rollout.layout import RolloutSpec


def _followup(spec: RolloutSpec, state: RolloutState, turn: int):
  """Token ids between two answers: the end of turn that a cut answer needs, the instruction."""
  needs_eot_B1 = state.episode.is_truncated[:, turn - 1 : turn]
  ids_I = jnp.asarray(spec.followup_ids[turn - 1], jnp.int32)
  ids_BI = jnp.broadcast_to(ids_I, (needs_eot_B1.shape[0], ids_I.shape[0]))
  eot_B1 = jnp.full(needs_eot_B1.shape, spec.end_of_turn_ids[0], jnp.int32)
  is_token_BI = jnp.concatenate([needs_eot_B1, jnp.ones(ids_BI.shape, bool)], axis=1)
  return jnp.concatenate([eot_B1, ids_BI], axis=1), is_token_BI


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _first_segment(
  decoder, spec, group, params, prompt_BT, is_prompt_BT, keys_B, temperature, forced
):
  state = place(empty_state(decoder, spec, prompt_BT.shape[0]))
  state, kv = append(decoder, params, state, prompt_BT, is_prompt_BT, 0, group)
  state = state.with_more(kv) if group == 1 else state.replace(prompt_cache=kv)
  return place(_answer(decoder, spec, params, state, 0, keys_B, temperature, forced))


# The rows' own cache grows, so that its memory cannot serve again: it is not donated.
@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=(4,))
def _next_segment(decoder, spec, turn, params, state, own_cache, keys_B, temperature, forced):
  state = state.replace(own_cache=own_cache)
  tokens_BI, is_token_BI = _followup(spec, state, turn)
  state = prefill(decoder, params, state, tokens_BI, is_token_BI, spec.first_slot(turn))
  return place(_answer(decoder, spec, params, state, turn, keys_B, temperature, forced))


def _answer(decoder, spec, params, state, turn, keys_B, temperature, forced) -> RolloutState:
  """A turn's answers: sampled where `forced` is None, else these tokens."""
  if forced is None:
    keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, turn)
    return decode(decoder, spec, params, state, keys_B, temperature, turn)
  tokens_BI, is_token_BI = forced
  slot = spec.first_slot(turn) + spec.input_slots(turn)
  state = prefill(decoder, params, state, tokens_BI, is_token_BI, slot)
  e = state.episode
  turn_BI = jnp.where(is_token_BI, turn + 1, 0)
  turn_BT = jax.lax.dynamic_update_slice_in_dim(e.turn, turn_BI, slot, 1)
  ends_B = jnp.any(is_end(tokens_BI, spec) & is_token_BI, axis=1)
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
  forced: Mapping[int, tuple[jax.Array, jax.Array]] | None = None,
  after_turn: Callable[[int, Episode], None] | None = None,
  samples_per_prompt: int = 1,
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
    forced: answers that are not sampled, by turn: i32 and bool [B, turn_tokens[turn]] (base-model
      first attempts, a fixed set of first answers, a program to repair). They are context: never
      marked as sampled.
    after_turn: called with the turn and the episode so far while the device goes on; to read is to
      wait for that turn.
    samples_per_prompt: G: rows come in groups of G with the same prompt, which is run and kept once
      (unless the groups do not divide by the devices). Only a group's first row is looked at.

  Returns:
    The episode, in slots.

  Raises:
    ValueError: if an array's shape or a turn does not fit the spec, if the rows are no groups of G,
      or for a temperature below 0.
  """
  forced = forced or {}
  B = prompt_BT.shape[0]
  if prompt_BT.shape != (B, spec.prompt_tokens) or is_prompt_BT.shape != prompt_BT.shape:
    raise ValueError(f'prompts of shape {prompt_BT.shape} for {spec.prompt_tokens} prompt slots')
  if temperature < 0:
    raise ValueError(f'temperature={temperature} must not be below 0')
  for turn, (tokens, is_token) in forced.items():
    if not 0 <= turn < spec.num_turns:
      raise ValueError(
        f'forced answers of turn {turn}; the episode has turns 0 to {spec.num_turns - 1}'
      )
    shape = (B, spec.turn_tokens[turn])
    if tokens.shape != shape or is_token.shape != shape:
      raise ValueError(f'forced answers of turn {turn}: shape {tokens.shape}, expected {shape}')
  temperature = jnp.float32(temperature)
  group = _group(B, samples_per_prompt)
  params, decoder = decoding_params(decoder, params), unrolled(decoder)
  state = _first_segment(
    decoder, spec, group, params, prompt_BT, is_prompt_BT, keys_B, temperature, forced.get(0)
  )
  for turn in range(1, spec.num_turns):
    if after_turn is not None:
      # A copy: the state itself is donated to the next segment.
      after_turn(turn - 1, jax.tree.map(jnp.copy, state.episode))
    state, own = state.replace(own_cache=()), state.own_cache
    state = _next_segment(
      decoder, spec, turn, params, state, own, keys_B, temperature, forced.get(turn)
    )
  if after_turn is not None:
    after_turn(spec.num_turns - 1, state.episode)
  return state.episode


def _group(num_rows: int, samples_per_prompt: int) -> int:
  """Rows that share a prompt's keys and values."""
  if num_rows % samples_per_prompt:
    raise ValueError(f'{num_rows} rows are no groups of samples_per_prompt={samples_per_prompt}')
  return samples_per_prompt if divides(num_rows // samples_per_prompt, 'batch') else 1


def compile_segments(
  decoder: Decoder,
  spec: RolloutSpec,
  params: dict,
  prompt_BT: jax.ShapeDtypeStruct,
  is_prompt_BT: jax.ShapeDtypeStruct,
  keys_B: jax.ShapeDtypeStruct,
  samples_per_prompt: int = 1,
) -> list[jax.stages.Compiled]:
  """Compiles what `rollout` would run, without running it.

  Args:
    decoder: the model.
    spec: budgets, instructions, ends of turn.
    params: shapes and shardings of the policy's parameters.
    prompt_BT: i32[B, prompt_tokens] with its sharding, and so on, as for `rollout`.
    is_prompt_BT: bool[B, prompt_tokens].
    keys_B: keys.
    samples_per_prompt: G.

  Returns:
    The program of each turn. Their parameters are those of `decoding_params`.
  """
  draws = (keys_B, jax.ShapeDtypeStruct((), jnp.float32), None)
  lowered = decoding_params.lower(decoder, params)
  params, decoder = _outputs(lowered, lowered.compile()), unrolled(decoder)
  group = _group(prompt_BT.shape[0], samples_per_prompt)
  lowered = _first_segment.lower(decoder, spec, group, params, prompt_BT, is_prompt_BT, *draws)
  programs = [lowered.compile()]
  for turn in range(1, spec.num_turns):
    state = _outputs(lowered, programs[-1])
    state, own = state.replace(own_cache=()), state.own_cache
    lowered = _next_segment.lower(decoder, spec, turn, params, state, own, *draws)
    programs.append(lowered.compile())
  return programs


def _outputs(lowered: jax.stages.Lowered, program: jax.stages.Compiled):
  """Shapes and places of what a program returns."""
  return jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    lowered.out_info,
    program.output_shardings,
  )
