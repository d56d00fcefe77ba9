"""How often a rollout runs which of its programs, found by its own schedule and no device."""

import collections
from collections.abc import Sequence

import numpy as np

from score_jax.planning.lengths import Lengths
from score_jax.rollout.generation import IDLE_STEPS
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.multi_turn import drive
from score_jax.rollout.schedule import Piece, Schedule, Turn
from score_jax.rollout.sizes import BlockShape, Sizes

_NO_END = -1  # a token that ends no turn


class Calls:
  """Stands where the programs of a rollout stand, and notes what they would have run.

  Attributes:
    sizes: static shapes.
    steps: tokens of all rows, by the shape of their blocks.
    blocks: by shape.
    given: calls that run given tokens.
  """

  def __init__(self, sizes: Sizes):
    """Starts with none."""
    self.sizes, self.given = sizes, 0
    self.steps, self.blocks = collections.Counter(), collections.Counter()

  def extend(
    self, pieces: list[list[Piece]], before: Sequence[int], counts: collections.Counter
  ) -> None:
    """Notes that tokens are given; as `score_jax.rollout.programs.Programs` does all this."""
    self.given += len(before)
    counts['extended'] += len(before) * self.sizes.rows * len(pieces) * self.sizes.piece
    counts['given'] += sum(len(p.tokens) for one in pieces for p in one)

  def copy_prompts(self, sources: list[list[int]]) -> None:
    """Notes nothing."""

  def decode(
    self, shape: BlockShape, turns: list[list[Turn]], counts: collections.Counter
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Notes a block whose rows end where their budgets do; returns what such a block would."""
    left_R = np.asarray([t.left for one in turns for t in one])
    steps = _steps(left_R, shape.steps)
    count_R = np.minimum(left_R, steps)
    self.steps[shape] += steps
    self.blocks[shape] += 1
    counts['steps'] += steps
    counts['decoded'] += steps * len(left_R)
    counts['sampled'] += int(count_R.sum())
    tokens_RN = np.full((len(left_R), shape.steps), _NO_END)
    return tokens_RN, np.zeros(tokens_RN.shape, np.float32), count_R


def _steps(left_R: np.ndarray, most: int) -> int:
  """After how many steps `decode_block` stops."""
  idle = 0
  for step in range(1, most + 1):
    idle += np.count_nonzero((left_R > 0) & (left_R <= step))
    if left_R.max() <= step or idle >= IDLE_STEPS * len(left_R):
      return step
  return most


def rollout_calls(
  spec: RolloutSpec, sizes: Sizes, num_devices: int, lengths: Lengths
) -> tuple[Calls, collections.Counter]:
  """Goes through a rollout of episodes of known lengths.

  Args:
    spec: budgets and instructions.
    sizes: static shapes.
    num_devices: along the batch.
    lengths: of the episodes.

  Returns:
    The calls, and the counts that `rollout` would give.
  """
  problem_B = np.arange(len(lengths.prompts)) // lengths.samples
  is_prompt_BT = np.arange(spec.prompt_tokens) < lengths.prompts[:, None]
  prompt_BT = np.broadcast_to(problem_B[:, None], is_prompt_BT.shape)
  prompts = (prompt_BT, is_prompt_BT)
  schedule = Schedule(spec, sizes, prompts, lengths.answers, {}, num_devices)
  calls, counts = Calls(sizes), collections.Counter()
  drive(schedule, calls, counts)
  return calls, counts
