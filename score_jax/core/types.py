"""The frozen pytrees that the layers hand to each other.

An episode lies in static slots,

    [ prompt | y1 | eot? instruction | y2 | ... ]

with holes where a row is short. `positions` count the real tokens of a row, so attention never
looks at slots: a token may look at every real token whose position is not after its own.
"""

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Episode:
  """A batch of finished episodes: K turns in one row of tokens.

  Attributes:
    tokens: i32[B, T] token ids; undefined in holes.
    positions: i32[B, T] place among the row's real tokens, from 0.
    is_token: bool[B, T] False in holes.
    turn: i32[B, T] k + 1 for a token that is part of the answer of turn k (counted from 0), 0
      for prompt, instruction and an end of turn that was appended to a cut answer.
    is_sampled: bool[B, T] True where the sampler chose the token, the end of turn included;
      False in forced turns. Only these tokens are trained.
    sampled_logp: f32[B, T] nats, under the sampling distribution; 0 where not sampled.
    is_truncated: bool[B, K] the turn's budget was spent before an end of turn.
  """

  tokens: jax.Array
  positions: jax.Array
  is_token: jax.Array
  turn: jax.Array
  is_sampled: jax.Array
  sampled_logp: jax.Array
  is_truncated: jax.Array

  @property
  def segment(self) -> None:
    """As in `PackedRows`: each row is one episode."""
    return None


@flax.struct.dataclass
class PackedRows:
  """Rows in which several episodes lie one behind the other: up to S of K turns each.

  To the objective such a row is one episode of S * K turns; the model keeps its episodes apart.
  An update computes N of the rows at a time, so that all arrays but those of a part have an axis C
  of parts after the first.

  Attributes:
    tokens: i32[N, T] token ids; 0 in holes.
    positions: i32[N, T] place in its episode, from 0.
    is_token: bool[N, T] False in holes.
    turn: i32[N, T] s * K + k + 1 for a token that was sampled in turn k of the row's episode s, 0
      for all others.
    sampled_logp: f32[N, T] nats, under the sampling distribution; 0 where not sampled.
    episode: i32[N, S] which of the batch's B episodes lie in the row; beyond B for none.
    segment: i32[N, T] s + 1 in the row's episode s, 0 in holes; None where each row is one episode.
  """

  tokens: jax.Array
  positions: jax.Array
  is_token: jax.Array
  turn: jax.Array
  sampled_logp: jax.Array
  episode: jax.Array
  segment: jax.Array | None = None

  @property
  def is_sampled(self) -> jax.Array:
    """bool[N, T]."""
    return self.turn > 0


@flax.struct.dataclass
class Batch:
  """What one update learns from (`score_jax.training.packing`).

  Episodes are problem-major: the G samples of a problem lie together.

  Attributes:
    rows: the tokens of B = P * G episodes, in C parts of N rows: arrays [N, C, ...].
    reward: f32[B, K] raw verdicts, 0 or 1.
    is_truncated: bool[B, K] as in `Episode`.
  """

  rows: PackedRows
  reward: jax.Array
  is_truncated: jax.Array


@flax.struct.dataclass
class TrainState:
  """What an update changes, and nothing else; frozen parameters travel beside it.

  Attributes:
    step: i32[] updates done.
    trainable: parameter tree that the optimiser moves.
    opt_state: the optimiser's state.
    kl_scale: f32[K] what each turn's KL weight is multiplied by, where the stage has KL targets;
      None where its weights are fixed.
  """

  step: jax.Array
  trainable: dict
  opt_state: tuple
  kl_scale: jax.Array | None = None


def turn_masks(episode: Episode | PackedRows, num_turns: int) -> jax.Array:
  """Splits the sampled tokens by turn.

  Args:
    episode: B rows of T slots.
    num_turns: K; of packed rows S * K.

  Returns:
    bool[B, K, T]: True where the token was sampled in turn k.

  Raises:
    AssertionError: at trace time, if the episode's arrays disagree in shape.
  """
  turns_K = jnp.arange(1, num_turns + 1)
  is_turn_BKT = episode.turn[:, None, :] == turns_K[None, :, None]
  return is_turn_BKT & episode.is_sampled[:, None, :]


def compact(episode: Episode, length: int) -> Episode:
  """Moves every row's real tokens together, so that slot and position are the same number.

  A scorer then sees plain left-aligned rows, and `length` can be as short as the longest row.

  Args:
    episode: Episode of B rows in slots with holes.
    length: slots of the result; must be at least the longest row's number of real tokens (checked
      by the caller, which knows the lengths; tokens beyond it would be lost).

  Returns:
    Episode with T = length.

  Raises:
    AssertionError: at trace time, if the episode's arrays disagree in shape.
  """
  rows_B1 = jnp.arange(episode.tokens.shape[0])[:, None]
  target_BT = jnp.where(episode.is_token, episode.positions, length)

  def move(x_BT: jax.Array) -> jax.Array:
    out_BT = jnp.zeros((x_BT.shape[0], length), x_BT.dtype)
    return out_BT.at[rows_B1, target_BT].set(x_BT, mode='drop')

  positions_BT = jnp.broadcast_to(jnp.arange(length), (episode.tokens.shape[0], length))
  return episode.replace(
    tokens=move(episode.tokens),
    positions=positions_BT,
    is_token=move(episode.is_token),
    turn=move(episode.turn),
    is_sampled=move(episode.is_sampled),
    sampled_logp=move(episode.sampled_logp),
  )
