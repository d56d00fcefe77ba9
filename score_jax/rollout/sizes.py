"""The static shapes of a rollout: few, so that few programs are compiled."""

import dataclasses

from score_jax.rollout.layout import RolloutSpec

# The most tokens of a block of decoding; the fewest of a piece of given tokens, which takes a whole
# instruction.
_MOST_STEPS, _LEAST_PIECE = 64, 32
# Fewer tokens at once than this are given no faster.
_LEAST_GIVEN = 256
# Lengths of the cache that programs are compiled for, none of them shorter than this.
_NUM_LENGTHS, _LEAST_LENGTH = 4, 64
# A TPU lays tokens in tiles of so many; what is not made of whole ones is laid out anew for each
# block.
_TILE = 8
# The last rows of a batch are decoded a quarter of the slots at a time, if a quarter is so many.
_LEAST_QUARTER = 8


@dataclasses.dataclass(frozen=True)
class BlockShape:
  """The static shape of a block of decoding; one compilation for each.

  Attributes:
    rows: of each device, that are decoded.
    length: tokens of each slot that are read: no row may have more.
    steps: the most tokens that a row samples.
  """

  rows: int
  length: int
  steps: int


@dataclasses.dataclass(frozen=True)
class Sizes:
  """The static shapes of a rollout, from few numbers; few programs are compiled.

  Attributes:
    slots: of each device.
    steps: the most tokens of a block of decoding.
    piece: tokens that a slot is given at once.
    rows: slots of each device that are given tokens at once.
    lengths: tokens of the cache that may be read, the last of them all that an episode has.
  """

  slots: int
  steps: int
  piece: int
  rows: int
  lengths: tuple[int, ...]

  @classmethod
  def of(cls, spec: RolloutSpec, slots: int) -> 'Sizes':
    """Chooses the sizes of a rollout.

    Args:
      spec: budgets and instructions.
      slots: of each device.

    Returns:
      The sizes.
    """
    total = spec.first_slot(spec.num_turns)
    given = [spec.prompt_tokens, *(spec.input_slots(k) for k in range(1, spec.num_turns))]
    step = max(_LEAST_LENGTH, -(-total // _NUM_LENGTHS))
    piece = min(max(given), max(_LEAST_PIECE, *given[1:], 1))
    return cls(
      slots=slots,
      steps=min(_MOST_STEPS, max(spec.turn_tokens)),
      piece=piece,
      rows=min(slots, max(slots // 8, -(-_LEAST_GIVEN // piece))),
      lengths=tuple(min(n, total) for n in range(step, total + step, step)),
    )

  @property
  def capacity(self) -> int:
    """Tokens of a slot: an episode's, and room for what is written behind them."""
    return -(-(self.lengths[-1] + max(self.steps, self.piece)) // _TILE) * _TILE

  @property
  def most_calls(self) -> int:
    """Calls that it takes to give all slots of a device all that they may have."""
    return -(-self.slots // self.rows) * -(-self.lengths[-1] // self.piece)

  def blocks(self) -> list[BlockShape]:
    """The shapes of decoding, from the cheapest on.

    The last one reads all that there is: so the cache is read where it lies, and no part of it is
    copied first.
    """
    quarter = self.slots // 4
    lengths = dict.fromkeys((self.lengths[(len(self.lengths) - 1) // 2], self.lengths[-1]))
    few = [BlockShape(quarter, n, self.steps) for n in lengths]
    every = [BlockShape(self.slots, n, self.steps) for n in (*self.lengths[:-1], self.capacity)]
    return (few if quarter >= _LEAST_QUARTER else []) + every

  def block(self, rows: int, longest: int) -> BlockShape:
    """The cheapest shape for so many rows of a device, of at most so many tokens."""
    return next(x for x in self.blocks() if rows <= x.rows and longest <= x.length)

  def past(self) -> tuple[int, ...]:
    """Tokens of the cache that a piece may see: none, those of the shortest length, or all."""
    *few, most = self.lengths
    return (0, few[0], most) if few else (most,)
