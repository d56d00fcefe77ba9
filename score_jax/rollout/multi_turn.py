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

from score_jax.core.sharding import batch_rows, local_rows, put_batch
from score_jax.core.types import Episode
from score_jax.model.decode_params import decoding_params, unrolled
from score_jax.model.decoder import Decoder
from score_jax.rollout.generation import Draws, Inputs, copy_prompts, decode_block, extend
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.schedule import Answer, Piece, Schedule, Turn
from score_jax.rollout.sizes import BlockShape, Sizes
from score_jax.rollout.slots import empty_slots


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
    on_answers: called with the answers that have ended, forced ones too, as soon as they have; the
      device waits for it.
    slots: episodes that are decoded at once, over all devices; None for all.
    budgets: i32[B, K] tokens that each row may sample in each turn, of 1 to `spec.turn_tokens`;
      None for all of these.
    counts: told what was run: 'steps', 'decoded' (steps times rows), 'sampled' tokens, 'extended'
      (positions of prompts, instructions and forced answers), 'given' (the tokens among them).

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
  programs = Programs(decoder, spec, sizes, params, keys, temperature, mesh)
  counts = collections.Counter() if counts is None else counts
  drive(schedule, programs, counts, on_answers)
  e = schedule.episode
  positions = np.maximum(np.cumsum(e.is_token, axis=1, dtype=np.int32) - 1, 0)
  return e.replace(positions=positions)


def drive(
  schedule: Schedule,
  programs: 'Programs',
  counts: collections.Counter,
  on_answers: Callable[[Sequence[Answer]], None] | None = None,
) -> None:
  """Runs a schedule's episodes to their ends.

  Args:
    schedule: with all episodes queued.
    programs: or what counts them and runs none (`score_jax.planning.calls`).
    counts: as for `rollout`.
    on_answers: as for `rollout`.
  """
  while True:
    pieces, sources = schedule.seat()
    programs.extend(pieces, counts)
    programs.copy_prompts(sources)
    programs.extend(schedule.given(), counts)
    rows, longest = _most(schedule.live())
    if rows:
      shape = schedule.sizes.block(rows, longest)
      turns = schedule.turns(shape.rows)
      schedule.take(turns, *programs.decode(shape, turns, counts))
    answers, schedule.answers = schedule.answers, []
    if answers and on_answers is not None:
      on_answers(answers)
    if not rows:
      break


def _check(spec, prompt_BT, is_prompt_BT, forced, budgets, temperature, slots) -> None:
  B = len(prompt_BT)
  if prompt_BT.shape != (B, spec.prompt_tokens) or is_prompt_BT.shape != prompt_BT.shape:
    raise ValueError(f'prompts of shape {prompt_BT.shape} for {spec.prompt_tokens} prompt slots')
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


def _most(numbers: Sequence[int]) -> tuple[int, ...]:
  """The most of each number over the processes, which so run the same programs."""
  if jax.process_count() == 1:
    return tuple(numbers)
  everywhere = multihost_utils.process_allgather(np.asarray(numbers, np.int32))
  return tuple(everywhere.max(axis=0).tolist())


# Programs that have been run once, by what they are compiled for.
_COMPILED: set = set()


class Programs:
  """The slots of a rollout, and the programs that are run on them."""

  def __init__(
    self,
    decoder: Decoder,
    spec: RolloutSpec,
    sizes: Sizes,
    params: dict,
    keys: np.ndarray,
    temperature: float,
    mesh: jax.sharding.Mesh,
  ):
    """Prepares parameters and slots; compiles all programs where they are new.

    Args:
      decoder: the model.
      spec: ends of turn, top-k and top-p.
      sizes: static shapes.
      params: the policy's.
      keys: u32[N, ...] data of the rows' keys.
      temperature: 0 is greedy.
      mesh: the devices; empty for the default one.
    """
    self.decoder, self.spec, self.sizes, self.mesh = unrolled(decoder), spec, sizes, mesh
    self.params = decoding_params(decoder, params)
    self.keys, self.temperature = keys, jnp.float32(temperature)
    self.num_devices = 1 if mesh.empty else batch_rows(mesh) // jax.process_count()
    num_slots = sizes.slots * self.num_devices * jax.process_count()
    self.slots = empty_slots(self.decoder, num_slots, sizes.capacity)
    known = (decoder, spec, sizes, mesh)
    if known not in _COMPILED:
      self._run_all()
      _COMPILED.add(known)

  def extend(self, pieces: list[list[Piece]], counts: collections.Counter) -> None:
    """Gives slots their pieces, those of each device in order, `sizes.rows` at a time."""
    rows = self.sizes.rows
    (num_calls,) = _most([-(-max(map(len, pieces)) // rows)])
    for call in range(num_calls):
      mine = [one[call * rows : (call + 1) * rows] for one in pieces]
      longest = max((p.length for one in mine for p in one), default=0)
      (longest,) = _most([longest])
      length = next(n for n in self.sizes.past() if longest <= n)
      self._extend(length, mine)
      counts['extended'] += rows * self.num_devices * self.sizes.piece
      counts['given'] += sum(len(p.tokens) for one in mine for p in one)

  def _extend(self, length: int, pieces: Sequence[Sequence[Piece]]) -> None:
    shape = (self.num_devices, self.sizes.rows)
    x = {name: np.zeros(shape, np.int32) for name in ('slot', 'length', 'count')}
    tokens = np.zeros((*shape, self.sizes.piece), np.int32)
    is_prompt = np.zeros(shape, bool)
    for d, one in enumerate(pieces):
      for r, piece in enumerate(one):
        x['slot'][d, r], x['length'][d, r] = piece.slot, piece.length
        x['count'][d, r], is_prompt[d, r] = len(piece.tokens), piece.is_prompt
        tokens[d, r, : len(piece.tokens)] = piece.tokens
    inputs = self._put(Inputs(tokens=tokens, is_prompt=is_prompt, **x))
    self.slots = extend(self.decoder, length, self.params, self.slots, inputs)

  def copy_prompts(self, sources: list[list[int]]) -> None:
    """Gives slots the prompts of others, where any is to have one; -1 leaves a slot alone."""
    source = np.asarray(sources, np.int32)
    (is_any,) = _most([int((source >= 0).any())])
    if is_any:
      self._copy_prompts(source)

  def _copy_prompts(self, source: np.ndarray) -> None:
    own = np.broadcast_to(np.arange(self.sizes.slots), source.shape)
    both = self._put((np.where(source < 0, own, source).astype(np.int32), source >= 0))
    self.slots = copy_prompts(self.spec.prompt_tokens, self.slots, *both)

  def decode(
    self, shape: BlockShape, turns: list[list[Turn]], counts: collections.Counter
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples a block; i32[R, steps] tokens, f32[R, steps] nats, i32[R] tokens of each row."""
    *results, steps = self._decode(shape, turns)
    tokens, logp, count = local_rows(tuple(results))
    counts['steps'] += int(steps)
    counts['decoded'] += int(steps) * len(count)
    counts['sampled'] += int(count.sum())
    return tokens, logp, count

  def _decode(self, shape: BlockShape, turns: Sequence[Sequence[Turn]]):
    def column(name):
      return np.asarray([[getattr(t, name) for t in one] for one in turns], np.int32)

    names = ('slot', 'length', 'turn', 'sampled', 'left')
    x = self._put({name: column(name) for name in names} | {'key': self.keys[column('row')]})
    x['key'] = jax.random.wrap_key_data(x['key'], impl='threefry2x32')
    self.slots, *results = decode_block(
      self.decoder, self.spec, shape, self.params, self.slots, Draws(**x), self.temperature
    )
    return results

  def _put(self, tree):
    """Puts [devices, R, ...] onto the devices as [devices R, ...]."""
    tree = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)
    return jax.tree.map(jnp.asarray, tree) if self.mesh.empty else put_batch(self.mesh, tree)

  def _run_all(self) -> None:
    """Runs every program once with nothing to do: so none is compiled later, in a long run."""
    for length in self.sizes.past():
      self._extend(length, [])
    self._copy_prompts(np.full((self.num_devices, self.sizes.slots), -1))
    for shape in self.sizes.blocks():
      self._decode(shape, [[Turn(i, 0, 0, 0, 0, 0) for i in range(shape.rows)]] * self.num_devices)
