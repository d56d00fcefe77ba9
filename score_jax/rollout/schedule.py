"""Which episode sits in which slot, what it is fed next, and what has been sampled of it.

An episode goes on to its next turn as soon as one ends, and a slot that its episode has left takes
the next one of the queue, without regard to the others. All of it is a function of what was
sampled, never of time: so a run that is done again is the same.

    seat -> prompts, copies of them -> instructions -> a block of decoding -> take -> seat ...

This is the host's part, in plain numbers; `score_jax.rollout.programs` runs on the device.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from score_jax.core.types import Episode
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.sizes import Sizes


@dataclasses.dataclass
class Seat:
  """A slot and the episode that sits there.

  Attributes:
    row: which episode; -1 for none.
    turn: that is sampled, counted from 0.
    length: tokens that the slot has; after an episode, those that it had.
    sampled: tokens of the turn so far.
    left: tokens that its budget leaves.
    prompt: which prompt its first tokens are; -1 for none.
    given: tokens that it is still to be given.
  """

  row: int = -1
  turn: int = 0
  length: int = 0
  sampled: int = 0
  left: int = 0
  prompt: int = -1
  given: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Answer:
  """A turn that has ended.

  Attributes:
    row: of the episode.
    turn: counted from 0.
    ids: its tokens, an end of turn included.
  """

  row: int
  turn: int
  ids: list[int]


@dataclasses.dataclass(frozen=True)
class Piece:
  """Tokens that a slot is given at once.

  Attributes:
    slot: of its device.
    length: tokens before them.
    tokens: the ids.
    is_prompt: whether they are of the prompt.
  """

  slot: int
  length: int
  tokens: list[int]
  is_prompt: bool


@dataclasses.dataclass(frozen=True)
class Turn:
  """Where a row of a block of decoding is; see `score_jax.rollout.generation.Draws`."""

  slot: int
  row: int
  length: int
  turn: int
  sampled: int
  left: int


class Schedule:
  """The seats of this process's devices, the queue, and what is known of each episode.

  Attributes:
    sizes: the static shapes.
    episode: what has been sampled so far, N rows in slots, `positions` aside.
    answers: turns that have ended since this was last emptied.
  """

  def __init__(
    self,
    spec: RolloutSpec,
    sizes: Sizes,
    prompts: tuple[np.ndarray, np.ndarray],
    budgets: np.ndarray,
    forced: Mapping[int, tuple[np.ndarray, np.ndarray]],
    num_devices: int,
  ):
    """Queues all episodes.

    Args:
      spec: budgets, instructions, ends of turn.
      sizes: from `Sizes.of`.
      prompts: i32 and bool [N, prompt_tokens]; holes may lie anywhere.
      budgets: i32[N, K] tokens that each row may sample in each turn.
      forced: answers that are not sampled, by turn, i32 and bool [N, turn_tokens[turn]].
      num_devices: of this process, along the batch.
    """
    self.sizes, self.answers = sizes, []
    self.episode = _empty_episode(spec, *prompts)
    self._spec, self._budgets = spec, budgets
    self._forced = {
      turn: [ids[is_token].tolist() for ids, is_token in zip(*both, strict=True)]
      for turn, both in forced.items()
    }
    self._prompts = [ids[is_token].tolist() for ids, is_token in zip(*prompts, strict=True)]
    names = {ids: i for i, ids in enumerate(dict.fromkeys(map(tuple, self._prompts)))}
    self._prompt_of = [names[tuple(ids)] for ids in self._prompts]
    self._seats = [[Seat() for _ in range(sizes.slots)] for _ in range(num_devices)]
    self._queues = _deal(len(self._prompts), num_devices, sizes.slots)

  def seat(self) -> tuple[list[list[Piece]], list[list[int]]]:
    """Gives free slots to the next episodes.

    Returns:
      Of each device the pieces of the prompts that no slot of it has, in order; and for each slot
      the one whose prompt it is to have after them, -1 where nothing changes.
    """
    pieces, sources = [], []
    for seats, queue in zip(self._seats, self._queues, strict=True):
      prefills, source = [], [-1] * len(seats)
      has = {seat.prompt: i for i, seat in enumerate(seats)}
      free = [i for i, seat in enumerate(seats) if seat.row < 0]
      while free and queue:
        row = queue.popleft()
        prompt = self._prompt_of[row]
        # A free slot that has the prompt comes first: so it cannot be lost to another prompt
        # while samples wait that would copy it.
        slot = next((i for i in free if seats[i].prompt == prompt), free[0])
        self._begin(seats[slot], row)
        if seats[slot].row < 0:
          continue  # all of its turns are forced
        free.remove(slot)
        before, seats[slot].prompt = seats[slot].prompt, prompt
        if before == prompt:
          has[prompt] = slot
        elif has.get(before) == slot:
          del has[before]
        if prompt not in has:
          has[prompt] = slot
          prefills.append((slot, self._prompts[row]))
        source[slot] = has[prompt]
      pieces.append(_in_pieces([(slot, 0, ids) for slot, ids in prefills], self.sizes, True))
      sources.append(source)
    return pieces, sources

  def given(self) -> list[list[Piece]]:
    """Of each device what its rows are given before they sample: instructions, forced answers."""
    pieces = []
    for seats in self._seats:
      waiting = [(i, seat.length, seat.given) for i, seat in enumerate(seats) if seat.given]
      pieces.append(_in_pieces(waiting, self.sizes, False))
      for i, length, ids in waiting:
        seats[i].length, seats[i].given = length + len(ids), []
    return pieces

  def live(self) -> tuple[int, int]:
    """Rows that sample, of the device that has the most, and tokens of the longest; 0, 0: none."""
    live = [[seat.length for seat in seats if seat.row >= 0] for seats in self._seats]
    return max(map(len, live)), max((n for lengths in live for n in lengths), default=0)

  def turns(self, rows: int) -> list[list[Turn]]:
    """Of each device `rows` slots to decode, all that sample among them; all slots in order."""
    chosen = []
    for seats in self._seats:
      order = range(len(seats))
      if rows < len(seats):
        order = sorted(order, key=lambda i, seats=seats: seats[i].row < 0)[:rows]
      chosen.append(
        [
          Turn(i, max(s.row, 0), s.length, s.turn, s.sampled, s.left if s.row >= 0 else 0)
          for i, s in ((i, seats[i]) for i in order)
        ]
      )
    return chosen

  def take(
    self,
    turns: Sequence[Sequence[Turn]],
    tokens_RN: np.ndarray,
    logp_RN: np.ndarray,
    count_R: np.ndarray,
  ) -> None:
    """Writes down what a block sampled, and lets rows whose turn has ended go on.

    Args:
      turns: from `turns`.
      tokens_RN: i32[R, steps], the devices' rows one after the other.
      logp_RN: f32[R, steps] nats.
      count_R: i32[R] tokens of each row.
    """
    of_rows = ((seats[t.slot], t) for seats, ts in zip(self._seats, turns, strict=True) for t in ts)
    for (seat, turn), ids, logp, count in zip(of_rows, tokens_RN, logp_RN, count_R, strict=True):
      if not turn.left:
        continue
      ids = ids[:count].tolist()
      at = self._write_answer(seat, ids, seat.sampled)
      self.episode.is_sampled[seat.row, at] = True
      self.episode.sampled_logp[seat.row, at] = logp[:count]
      seat.length, seat.sampled, seat.left = (
        seat.length + count,
        seat.sampled + count,
        seat.left - count,
      )
      is_ended = bool(ids) and ids[-1] in self._spec.end_of_turn_ids
      if is_ended or not seat.left:
        self._end_turn(seat, is_ended)
        self._go_on(seat)

  def _begin(self, seat: Seat, row: int) -> None:
    seat.row, seat.turn, seat.length, seat.given = row, 0, len(self._prompts[row]), []
    self._go_on(seat)

  def _go_on(self, seat: Seat) -> None:
    """Passes over forced turns to the next that is sampled; else leaves the seat."""
    while (forced := self._forced.get(seat.turn)) is not None:
      ids = forced[seat.row]
      self._write_answer(seat, ids, 0)
      seat.given += ids
      self._end_turn(seat, any(i in self._spec.end_of_turn_ids for i in ids))
    if seat.turn < self._spec.num_turns:
      seat.sampled, seat.left = 0, int(self._budgets[seat.row, seat.turn])
    else:
      seat.row, seat.given = -1, []

  def _end_turn(self, seat: Seat, is_ended: bool) -> None:
    """Notes the answer, and gives the seat what comes between it and the next."""
    e, spec = self.episode, self._spec
    e.is_truncated[seat.row, seat.turn] = not is_ended
    ids = e.tokens[seat.row, e.turn[seat.row] == seat.turn + 1].tolist()
    self.answers.append(Answer(seat.row, seat.turn, ids))
    seat.turn += 1
    if seat.turn == spec.num_turns:
      return
    followup = list(spec.followup_ids[seat.turn - 1])
    first = spec.first_slot(seat.turn)
    if not is_ended:
      e.tokens[seat.row, first], e.is_token[seat.row, first] = spec.end_of_turn_ids[0], True
      seat.given.append(spec.end_of_turn_ids[0])
    at = slice(first + 1, first + 1 + len(followup))
    e.tokens[seat.row, at], e.is_token[seat.row, at] = followup, True
    seat.given += followup

  def _write_answer(self, seat: Seat, ids: list[int], before: int) -> slice:
    """Writes tokens of an answer that `before` others precede; returns where."""
    first = self._spec.first_slot(seat.turn) + self._spec.input_slots(seat.turn) + before
    at = slice(first, first + len(ids))
    e = self.episode
    e.tokens[seat.row, at], e.is_token[seat.row, at] = ids, True
    e.turn[seat.row, at] = seat.turn + 1
    return at


def _empty_episode(spec: RolloutSpec, prompt_NT: np.ndarray, is_prompt_NT: np.ndarray) -> Episode:
  """Episodes on the host that have their prompts and nothing else."""
  shape = (len(prompt_NT), spec.first_slot(spec.num_turns))
  e = Episode(
    tokens=np.zeros(shape, np.int32),
    positions=np.zeros(shape, np.int32),
    is_token=np.zeros(shape, bool),
    turn=np.zeros(shape, np.int32),
    is_sampled=np.zeros(shape, bool),
    sampled_logp=np.zeros(shape, np.float32),
    is_truncated=np.zeros((len(prompt_NT), spec.num_turns), bool),
  )
  slots = slice(0, spec.prompt_tokens)
  e.tokens[:, slots] = np.where(is_prompt_NT, prompt_NT, 0)
  e.is_token[:, slots] = is_prompt_NT
  return e


def _deal(num_rows: int, num_devices: int, slots: int) -> list[collections.deque[int]]:
  """Deals rows to devices, as many in a row as a device has slots: samples stay together."""
  queues = [collections.deque() for _ in range(num_devices)]
  for first in range(0, num_rows, slots):
    queues[first // slots % num_devices].extend(range(first, min(first + slots, num_rows)))
  return queues


def _in_pieces(waiting, sizes: Sizes, is_prompt: bool) -> list[Piece]:
  """Cuts (slot, tokens before, ids) into pieces, the first ones of all before the second ones.

  A call takes `sizes.rows` pieces; those of a slot must lie in different ones.
  """
  pieces, size = [], sizes.piece
  for start in range(0, max((len(ids) for *_, ids in waiting), default=0), size):
    wave = [
      Piece(slot, length + start, ids[start : start + size], is_prompt)
      for slot, length, ids in waiting
      if start < len(ids)
    ]
    nothing = Piece(0, 0, [], False)
    pieces += wave + [nothing] * (-len(wave) % sizes.rows)
  return pieces
