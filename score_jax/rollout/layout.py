"""How an episode lies in its slots: prompt, answers and instructions, each with its budget."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class RolloutSpec:
  """The static shape of an episode; one compilation for each.

  Attributes:
    prompt_tokens: slots for the prompt.
    turn_tokens: budget of each turn in tokens, the end of turn included; K = its length.
    followup_ids: for each turn but the first, the token ids between the answers.
    end_of_turn_ids: any of these ends a turn; the first is appended to a cut answer.
    top_k: see `score_jax.model.sampling.sampling_logp`.
    top_p: same.
  """

  prompt_tokens: int
  turn_tokens: tuple[int, ...]
  followup_ids: tuple[tuple[int, ...], ...]
  end_of_turn_ids: tuple[int, ...]
  top_k: int = 0
  top_p: float = 1.0

  def __post_init__(self):
    if len(self.followup_ids) != len(self.turn_tokens) - 1:
      raise ValueError(
        f'{len(self.turn_tokens)} turns need {len(self.turn_tokens) - 1} instructions, '
        f'got {len(self.followup_ids)}'
      )
    if min(self.turn_tokens) < 1 or self.prompt_tokens < 1 or not self.end_of_turn_ids:
      raise ValueError(f'every budget must be at least 1 and end_of_turn_ids not empty: {self}')

  @property
  def num_turns(self) -> int:
    """K."""
    return len(self.turn_tokens)

  def first_turns(self, count: int) -> 'RolloutSpec':
    """The same episode, ended after `count` turns."""
    return dataclasses.replace(
      self, turn_tokens=self.turn_tokens[:count], followup_ids=self.followup_ids[: count - 1]
    )

  def input_slots(self, turn: int) -> int:
    """Slots that are prefilled before a turn: the prompt, or eot and instruction."""
    return self.prompt_tokens if turn == 0 else 1 + len(self.followup_ids[turn - 1])

  def first_slot(self, turn: int) -> int:
    """The slot at which a turn's prefill begins; turn K gives the number of all slots."""
    return sum(self.input_slots(k) + self.turn_tokens[k] for k in range(turn))


# An update is compiled for each length of its rows, which takes minutes for a large model.
_MAX_LENGTHS = 4


def length_step(length_bucket: int, num_slots: int) -> int:
  """What the length of a batch's rows is rounded up to a multiple of, so that few lengths occur.

  Args:
    length_bucket: tokens; the least, and a divisor of it.
    num_slots: of an episode, which no row is longer than.

  Returns:
    Tokens. At most four multiples of it are needed.

  Example:
    >>> length_step(64, 200), length_step(64, 2625)
    (64, 704)
  """
  return -(-num_slots // (_MAX_LENGTHS * length_bucket)) * length_bucket
