"""Log-probabilities, entropy and exact KL of tokens, without a [B, T, V] array.

The vocabulary is the largest axis there is. Both policies' logits are made for `chunk` query
positions at a time and made again in the backward pass. On a mesh each device makes them for its
part of the vocabulary, for the rows of all: hidden states are gathered, not the output matrix.
"""

import chex
import flax.struct
import jax
import jax.numpy as jnp

from score_jax.core.logits import Head, project
from score_jax.core.sharding import constrain, divides


@flax.struct.dataclass
class TokenScores:
  """What the policy and the reference say of each token, given the tokens before it.

  Attributes:
    logp: f32[B, T] nats, log pi(token); differentiable.
    ref_logp: f32[B, T] nats, log pi_ref(token).
    kl: f32[B, T] nats, sum over the vocabulary of pi (log pi - log pi_ref); differentiable.
    entropy: f32[B, T] nats, of pi.
  """

  logp: jax.Array
  ref_logp: jax.Array
  kl: jax.Array
  entropy: jax.Array


def score_tokens(
  hidden_BTD: jax.Array,
  head: Head,
  ref_hidden_BTD: jax.Array,
  ref_head: Head,
  targets_BT: jax.Array,
  temperature: float = 1.0,
  chunk: int = 128,
) -> TokenScores:
  """Scores target tokens under policy and reference.

  Args:
    hidden_BTD: the policy's hidden state *before* each target (already shifted).
    head: the policy's output matrix head_DV, or a `CappedHead` of it.
    ref_hidden_BTD: the reference's; no gradient reaches it.
    ref_head: the reference's.
    targets_BT: i32[B, T] token ids.
    temperature: that of the sampler; both distributions are taken at it.
    chunk: query positions whose logits exist at once.

  Returns:
    TokenScores.

  Raises:
    AssertionError: at trace time, if shapes disagree.
    ValueError: if the temperature or the chunk is not above 0.

  Source: arXiv:2409.12917, Eq. 2, the KL term, exact over the vocabulary at each prefix.
  """
  chex.assert_equal_shape_prefix([hidden_BTD, ref_hidden_BTD, targets_BT], 2)
  chex.assert_rank(jax.tree.leaves([head, ref_head]), 2)
  if temperature <= 0:
    raise ValueError(f'config.rollout.temperature={temperature} must be above 0 to train')
  if chunk < 1:
    raise ValueError(f'config.train.chunk_tokens={chunk} must be at least 1')
  ref_hidden_BTD = jax.lax.stop_gradient(ref_hidden_BTD)
  ref_head = jax.lax.stop_gradient(ref_head)

  @jax.checkpoint
  def score(inputs, heads):
    *hiddens, targets = inputs
    logp_V, ref_logp_V = (
      jax.nn.log_softmax(_logits(x, head) / temperature)
      for x, head in zip(hiddens, heads, strict=True)
    )
    p_V = jnp.exp(logp_V)
    return TokenScores(
      logp=jnp.take_along_axis(logp_V, targets[..., None], axis=-1)[..., 0],
      ref_logp=jnp.take_along_axis(ref_logp_V, targets[..., None], axis=-1)[..., 0],
      kl=jnp.sum(p_V * (logp_V - ref_logp_V), axis=-1),
      entropy=-jax.lax.stop_gradient(jnp.sum(p_V * logp_V, axis=-1)),
    )

  inputs = (hidden_BTD, ref_hidden_BTD, targets_BT)
  return _in_chunks(score, inputs, (_split_vocab(head), _split_vocab(ref_head)), chunk)


def token_logp(
  hidden_BTD: jax.Array, head: Head, targets_BT: jax.Array, chunk: int = 128
) -> tuple[jax.Array, jax.Array]:
  """Log-probabilities of target tokens under one model at temperature 1, for supervised training.

  Args:
    hidden_BTD: the hidden state *before* each target (already shifted).
    head: the output matrix head_DV, or a `CappedHead` of it.
    targets_BT: i32[B, T] token ids.
    chunk: query positions whose logits exist at once.

  Returns:
    f32[B, T] nats, and bool[B, T]: whether the target is the likeliest token.
  """
  chex.assert_equal_shape_prefix([hidden_BTD, targets_BT], 2)

  @jax.checkpoint
  def score(inputs, head):
    hidden, targets = inputs
    logp_V = jax.nn.log_softmax(_logits(hidden, head))
    logp = jnp.take_along_axis(logp_V, targets[..., None], axis=-1)[..., 0]
    return logp, jnp.argmax(logp_V, axis=-1) == targets

  return _in_chunks(score, (hidden_BTD, targets_BT), _split_vocab(head), chunk)


def _logits(hidden_BID: jax.Array, head: Head) -> jax.Array:
  """f32[B, I, V], a part of the vocabulary on each device for the rows of all that share it."""
  if not _is_split(head):
    return project(hidden_BID, head)
  hidden_BID = constrain(hidden_BID, ('scored_batch', None, None))
  return constrain(project(hidden_BID, head), ('scored_batch', None, 'scored_vocab'))


def _split_vocab(head: Head) -> Head:
  """The output matrix as scoring wants it, from where it lies as a parameter."""

  def split(head_DV):
    # So that its gradient goes back to there, and the new parameter with it.
    head_DV = constrain(head_DV, ('embed', 'vocab'))
    return constrain(head_DV, (None, 'scored_vocab'))

  return jax.tree.map(split, head) if _is_split(head) else head


def _is_split(head: Head) -> bool:
  """Uneven parts would be padded, and the matrix gathered for it."""
  return divides(jax.tree.leaves(head)[0].shape[1], 'scored_vocab')


def _in_chunks(score, inputs, heads, chunk: int):
  """Maps `score(inputs, heads)` over query positions, `chunk` of them at a time."""
  B, T = inputs[0].shape[:2]
  chunk = min(chunk, T)
  num_chunks = -(-T // chunk)

  def split(x):  # [B, T, ...] -> [num_chunks, B, chunk, ...]
    pad = [(0, 0), (0, num_chunks * chunk - T)] + [(0, 0)] * (x.ndim - 2)
    x = jnp.pad(x, pad)
    return jnp.moveaxis(x.reshape(x.shape[0], num_chunks, chunk, *x.shape[2:]), 1, 0)

  if num_chunks == 1:
    return score(inputs, heads)
  _, chunks = jax.lax.scan(lambda _, x: (None, score(x, heads)), None, jax.tree.map(split, inputs))
  return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(B, -1)[:, :T], chunks)
