"""The sampler: episodes of K turns, many through few slots, from token ids to token ids.

1. A free slot takes the next episode: its prompt is run once, and copied for the other samples.
2. A block of decoding samples tokens of all rows, whatever turn they are at.
3. A row whose turn has ended is given the *instruction* (and, first, the end of turn that a cut
   answer still needs), and goes on; after its last turn its slot is free.

An episode that comes back lies in slots, with the budget of each turn (holes where a row is short):

    | prompt | y1 ........ | eot? instruction | y2 ........ |

Which rows decode side by side follows from what is sampled alone, and every random key from what
the episode is (`score_jax.rollout.keys`): so neither slots nor devices decide a sample. Between
blocks lies the host, where the answers that have ended can be graded.
"""

import collections
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from score_jax.core.sharding import batch_rows, local_rows
from score_jax.core.types import Episode
from score_jax.model.decoder import Decoder
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.programs import Programs
from score_jax.rollout.schedule import Answer, Piece, Schedule
from score_jax.rollout.sizes import Sizes


def rollout(
  decoder: Decoder,
  spec: RolloutSpec,
  params: dict,
  prompt_BT: np.ndarray,
  is_prompt_BT: np.ndarray,
  keys_B: jax.Array,
  temperature: float,
  forced: Mapping[int, tuple[np.ndarray, np.ndarray]] | None = None,
  on_answers: Callable[[Sequence[Answer]], None] | None = None,
  slots: int | None = None,
  budgets: np.ndarray | None = None,
  counts: collections.Counter | None = None,
  on_round: Callable[[], None] = lambda: None,
) -> Episode:
  """Samples episodes of K turns.

  With several processes, each gives its own rows, as many as every other one, and gets those.

  Args:
    decoder: the model.
    spec: budgets, instructions, ends of turn.
    params: the policy's parameters.
    prompt_BT: i32[B, prompt_tokens]. Equal prompts are run once if they lie together.
    is_prompt_BT: bool[B, prompt_tokens]; holes may lie anywhere.
    keys_B: from `episode_keys`.
    temperature: 0 is greedy.
    forced: answers that are not sampled, by turn: i32 and bool [B, turn_tokens[turn]] (base-model
      first attempts, a fixed set of first answers, a program to repair). They are context: never
      marked as sampled.
    on_answers: called with the answers that have ended, forced ones too, after each block; the
      device waits for it.
    slots: episodes that are decoded at once, over all devices; None for all.
    budgets: i32[B, K] tokens that each row may sample in each turn, of 1 to `spec.turn_tokens`;
      None for all of these.
    counts: told what this process ran: 'steps', 'decoded' (steps times rows), 'sampled' tokens,
      'extended' (positions of prompts, instructions and forced answers), 'given' (the tokens among
      them).
    on_round: called after each block, and each program that is compiled: as often by all processes.

  Returns:
    The episodes on the host, in slots.

  Raises:
    ValueError: if an array's shape, a budget or a turn does not fit the spec, or for a temperature
      or a number of slots that is too low.
  """
  arrays = (prompt_BT, is_prompt_BT, jax.random.key_data(keys_B), dict(forced or {}))
  prompt_BT, is_prompt_BT, keys, forced = local_rows(jax.tree.map(jnp.asarray, arrays))
  B = len(prompt_BT)
  budgets = np.broadcast_to(spec.turn_tokens, (B, spec.num_turns)) if budgets is None else budgets
  _check(spec, prompt_BT, is_prompt_BT, forced, budgets, temperature, slots)
  mesh, num_devices = jax.sharding.get_mesh(), 1
  if not mesh.empty:
    num_devices = batch_rows(mesh) // jax.process_count()
  whole = -(-B // num_devices)
  per_device = whole if slots is None else -(-slots // (num_devices * jax.process_count()))
  sizes = Sizes.of(spec, min(whole, per_device))
  prompts = (prompt_BT, is_prompt_BT)
  schedule = Schedule(spec, sizes, prompts, budgets, forced, num_devices)
  programs = Programs(decoder, spec, sizes, params, keys, temperature, mesh, on_round)
  counts = collections.Counter() if counts is None else counts
  drive(schedule, programs, counts, on_answers, on_round)
  e = schedule.episode
  positions = np.maximum(np.cumsum(e.is_token, axis=1, dtype=np.int32) - 1, 0)
  return e.replace(positions=positions)


def drive(
  schedule: Schedule,
  programs: Programs,
  counts: collections.Counter,
  on_answers: Callable[[Sequence[Answer]], None] | None = None,
  on_round: Callable[[], None] = lambda: None,
) -> None:
  """Runs a schedule's episodes to their ends.

  Args:
    schedule: with all episodes queued.
    programs: or what counts them and runs none (`score_jax.planning.calls`).
    counts: as for `rollout`.
    on_answers: as for `rollout`.
    on_round: as for `rollout`.
  """
  while True:
    prompts, sources = schedule.seat()
    given = schedule.given()
    before, before_given, is_copied, rows, longest = _agree(
      schedule.sizes, prompts, given, sources, schedule.live()
    )
    programs.extend(prompts, before, counts)
    if is_copied:
      programs.copy_prompts(sources)
    programs.extend(given, before_given, counts)
    if rows:
      shape = schedule.sizes.block(rows, longest)
      turns = schedule.turns(shape.rows)
      schedule.take(turns, *programs.decode(shape, turns, counts))
    answers, schedule.answers = schedule.answers, []
    if answers and on_answers is not None:
      on_answers(answers)
    on_round()
    if not rows:
      break


def _check(spec, prompt_BT, is_prompt_BT, forced, budgets, temperature, slots) -> None:
  B = len(prompt_BT)
  if prompt_BT.shape != (B, spec.prompt_tokens) or is_prompt_BT.shape != prompt_BT.shape:
    raise ValueError(f'prompts of shape {prompt_BT.shape} for {spec.prompt_tokens} prompt slots')
  if B and not is_prompt_BT.any(axis=1).all():
    empty = np.flatnonzero(~is_prompt_BT.any(axis=1))[:3].tolist()
    raise ValueError(f'prompts of rows {empty} have no token: an answer needs one before it')
  if temperature < 0:
    raise ValueError(f'temperature={temperature} must not be below 0')
  if slots is not None and slots < 1:
    raise ValueError(f'slots={slots} must be at least 1')
  for turn, (tokens, is_token) in forced.items():
    if not 0 <= turn < spec.num_turns:
      raise ValueError(
        f'forced answers of turn {turn}; the episode has turns 0 to {spec.num_turns - 1}'
      )
    shape = (B, spec.turn_tokens[turn])
    if tokens.shape != shape or is_token.shape != shape:
      raise ValueError(f'forced answers of turn {turn}: shape {tokens.shape}, expected {shape}')
  if budgets.shape != (B, spec.num_turns):
    raise ValueError(f'budgets of shape {budgets.shape}, expected {(B, spec.num_turns)}')
  if budgets.min() < 1 or (budgets > spec.turn_tokens).any():
    raise ValueError(
      f'budgets of {budgets.min()} to {budgets.max()} tokens: a row may sample 1 to '
      f'{spec.turn_tokens} of each turn'
    )


def _agree(
  sizes: Sizes,
  prompts: list[list[Piece]],
  given: list[list[Piece]],
  sources: list[list[int]],
  live: tuple[int, int],
) -> tuple[list[int], list[int], bool, int, int]:
  """What a round runs, so that all processes run the same programs; they speak once.

  Args:
    sizes: static shapes.
    prompts: of each device of this process, as are the next ones.
    given: instructions and forced answers.
    sources: whose prompt each slot is to have.
    live: rows that sample, and tokens of the longest.

  Returns:
    For each call that runs prompts, and for each that runs what is given, the tokens before its
    longest piece; whether prompts are copied; `live`. Of all of it the most of any process.
  """
  calls = [_longest_before(pieces, sizes) for pieces in (prompts, given)]
  is_copied = any(source >= 0 for one in sources for source in one)
  numbers = np.concatenate([*calls, [is_copied, *live]]).astype(np.int32)
  if jax.process_count() > 1:
    numbers = multihost_utils.process_allgather(numbers).max(axis=0)
  *calls, (is_copied, rows, longest) = np.split(numbers, np.cumsum([len(one) for one in calls]))
  before, before_given = (one[one >= 0].tolist() for one in calls)
  return before, before_given, bool(is_copied), int(rows), int(longest)


def _longest_before(pieces: list[list[Piece]], sizes: Sizes) -> np.ndarray:
  """The most tokens before any piece of each call, of all that there may be; -1: no such call."""
  longest = np.full(sizes.most_calls, -1)
  for one in pieces:
    for i, piece in enumerate(one):
      longest[i // sizes.rows] = max(longest[i // sizes.rows], piece.length)
  return longest
