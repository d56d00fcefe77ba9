"""From logits to a token: temperature, top-k, top-p, and true greedy at temperature 0."""

import chex
import jax
import jax.numpy as jnp


def sampling_logp(
  logits_BV: jax.Array, temperature: jax.Array, top_k: int = 0, top_p: float = 1.0
) -> jax.Array:
  """Log-probabilities that the sampler draws from.

  Temperature first, then the k most likely tokens, then the smallest set of most likely tokens
  whose probability reaches p; what is left is normalised again. Of equally likely tokens at the
  edge the lower ids stay, so that exactly k (or the smallest set) remain.

  Args:
    logits_BV: f32[B, V].
    temperature: f32[], above 0.
    top_k: keep this many tokens; 0 keeps all.
    top_p: keep this much probability, in (0, 1]; 1 keeps all.

  Returns:
    f32[B, V] nats; -inf for tokens that cannot be drawn.

  Raises:
    AssertionError: at trace time, if rank or type disagree.
    ValueError: for top_k below 0 or top_p outside (0, 1].

  Example:
    >>> import jax.numpy as jnp
    >>> logp = sampling_logp(jnp.log(jnp.array([[0.5, 0.3, 0.2]])), jnp.float32(1.0), top_k=2)
    >>> [round(float(p), 3) for p in jnp.exp(logp)[0]]
    [0.625, 0.375, 0.0]
  """
  chex.assert_rank(logits_BV, 2)
  chex.assert_type(logits_BV, jnp.float32)
  if top_k < 0 or not 0.0 < top_p <= 1.0:
    raise ValueError(f'top_k={top_k} must be at least 0 and top_p={top_p} in (0, 1]')
  logp_BV = jax.nn.log_softmax(logits_BV / temperature, axis=-1)
  if top_k == 0 and top_p == 1.0:
    return logp_BV
  order_BV = jnp.argsort(-logp_BV, axis=-1, stable=True)
  sorted_BV = jnp.take_along_axis(logp_BV, order_BV, axis=-1)
  is_kept_BV = jnp.ones(sorted_BV.shape, bool)
  if 0 < top_k < sorted_BV.shape[-1]:
    is_kept_BV &= jnp.arange(sorted_BV.shape[-1])[None, :] < top_k
    sorted_BV = jax.nn.log_softmax(jnp.where(is_kept_BV, sorted_BV, -jnp.inf), axis=-1)
  if top_p < 1.0:
    p_BV = jnp.exp(sorted_BV)
    # A token stays while the probability before it has not reached p; so the first always stays.
    is_kept_BV &= (jnp.cumsum(p_BV, axis=-1) - p_BV) < top_p
  rank_BV = jnp.argsort(order_BV, axis=-1)
  is_kept_BV = jnp.take_along_axis(is_kept_BV, rank_BV, axis=-1)
  return jax.nn.log_softmax(jnp.where(is_kept_BV, logp_BV, -jnp.inf), axis=-1)


def sample(
  logits_BV: jax.Array,
  keys_B: jax.Array,
  temperature: jax.Array,
  top_k: int = 0,
  top_p: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
  """Draws one token for each row, each with its own key.

  Args:
    logits_BV: f32[B, V].
    keys_B: B typed PRNG keys; a row's draw depends on its own key and logits alone.
    temperature: f32[]; 0 takes the most likely token (the lowest id of equals).
    top_k: see `sampling_logp`.
    top_p: see `sampling_logp`.

  Returns:
    i32[B] tokens and f32[B] their log-probability in nats under the distribution they were drawn
    from; 0 for greedy, which has no choice.

  Raises:
    AssertionError: at trace time, if ranks, types or B disagree.
  """
  chex.assert_equal_shape_prefix((logits_BV, keys_B), 1)

  def draw():
    logp_BV = sampling_logp(logits_BV, temperature, top_k, top_p)
    token_B = jax.vmap(jax.random.categorical)(keys_B, logp_BV)
    return token_B.astype(jnp.int32), jnp.take_along_axis(logp_BV, token_B[:, None], axis=-1)[:, 0]

  def take_best():
    return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32), jnp.zeros(logits_BV.shape[:1])

  # Not both: a draw takes a random number for every token of the vocabulary.
  return jax.lax.cond(temperature == 0, take_best, draw)
