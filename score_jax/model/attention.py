"""Attention by position: masks, rotary embedding, and the weighted sum itself."""

import jax
import jax.numpy as jnp
import numpy as np


def causal_mask(
  positions_BT: jax.Array, kv_positions_BS: jax.Array, kv_is_token_BS: jax.Array
) -> jax.Array:
  """Who may look at whom: every real token that is not later by position.

  Args:
    positions_BT: i32[B, T] positions of the queries.
    kv_positions_BS: i32[B, S] positions of the keys.
    kv_is_token_BS: bool[B, S] False for holes, which nobody sees.

  Returns:
    bool[B, T, S].

  Example:
    >>> import jax.numpy as jnp
    >>> p = jnp.array([[0, 1]])
    >>> causal_mask(p, p, jnp.array([[True, True]]))[0].tolist()
    [[True, False], [True, True]]
  """
  is_past_BTS = kv_positions_BS[:, None, :] <= positions_BT[:, :, None]
  return is_past_BTS & kv_is_token_BS[:, None, :]


def is_within(window: jax.Array, positions_BT: jax.Array, kv_positions_BS: jax.Array) -> jax.Array:
  """Which keys lie no further back than a sliding window.

  Args:
    window: i32[] positions that a query sees, its own included.
    positions_BT: i32[B, T] positions of the queries.
    kv_positions_BS: i32[B, S] positions of the keys.

  Returns:
    bool[B, T, S]; says nothing of holes and of the future.

  Example:
    >>> import jax.numpy as jnp
    >>> is_within(jnp.int32(2), jnp.array([[5]]), jnp.array([[5, 3, 4]]))[0].tolist()
    [[True, False, True]]
  """
  return positions_BT[:, :, None] - kv_positions_BS[:, None, :] < window


def rope_frequencies(
  rotary_dim: int, base: float, factor: float = 1.0, bands: tuple[float, ...] = ()
) -> np.ndarray:
  """Angles by which the pairs of a head turn from one position to the next.

  Pair i of h turns by base^(-i/h), divided by `factor`. With bands (low, high, length), a pair of
  wavelength w is stretched by how often it turns in `length` positions, n = length / w: not at all
  for n > high, in full for n < low, and in between by a weighted mean of the two frequencies.

  Args:
    rotary_dim: 2h, the part of a head that turns.
    base: wavelength base.
    factor: how far wavelengths are stretched.
    bands: () stretches all pairs.

  Returns:
    f32[h] radians, made in float64: at position 10,000 an error of 1e-7 would be one of 1e-3.

  Example:
    >>> rope_frequencies(4, 100.0).tolist()
    [1.0, 0.10000000149011612]

  Source: arXiv:2104.09864; the bands are those of Llama 3.1.
  """
  half = rotary_dim // 2
  frequency_h = base ** (-np.arange(half) / half)
  share_h = np.ones(half)
  if bands:
    low, high, length = bands
    turns_h = length * frequency_h / (2 * np.pi)
    share_h = np.clip((high - turns_h) / (high - low), 0.0, 1.0)
  stretched_h = (1 - share_h) * frequency_h + share_h * frequency_h / factor
  return stretched_h.astype(np.float32)


def apply_rope(x_BTNH: jax.Array, positions_BT: jax.Array, frequency_h: jax.Array) -> jax.Array:
  """Rotates halves of each head by an angle that grows with the position.

  Args:
    x_BTNH: [B, T, N, H] queries or keys.
    positions_BT: i32[B, T].
    frequency_h: f32[h] from `rope_frequencies`; the first 2h of a head turn, the rest stays.

  Returns:
    [B, T, N, H] in the type of `x_BTNH`; computed in float32.

  Source: arXiv:2104.09864, in the half-split layout of Llama checkpoints.
  """
  half = frequency_h.shape[0]
  angle_BT1h = positions_BT[:, :, None, None].astype(jnp.float32) * frequency_h[None, None, None]
  sin, cos = jnp.sin(angle_BT1h), jnp.cos(angle_BT1h)
  a, b, rest = jnp.split(x_BTNH.astype(jnp.float32), (half, 2 * half), axis=-1)
  turned = (a * cos - b * sin, b * cos + a * sin, rest)
  return jnp.concatenate(turned, axis=-1).astype(x_BTNH.dtype)


def attend(q_BTNH, keys, values, mask_BTS, scale: float = 1.0, softcap: float = 0.0) -> jax.Array:
  """Grouped-query attention over keys that lie in several pieces (cache, own tokens).

  The pieces meet at the logits, so that the cache is never copied.

  Args:
    q_BTNH: [B, T, N, H] queries.
    keys: sequence of [B, M, H, S_i], as `score_jax.model.cache.in_order` lays them.
    values: sequence of [B, M, S_i, H].
    mask_BTS: bool[B, T, S], S the sum of the S_i. A query that sees nothing gets a mean of all
      values, finite and unused: such queries are holes.
    scale: logits are multiplied by this.
    softcap: then squashed to cap * tanh(logits / cap); 0 leaves them.

  Returns:
    [B, T, N, H] in the type of the queries; logits and softmax in float32.
  """
  B, T, N, H = q_BTNH.shape
  M = keys[0].shape[1]
  # All queries of a key/value head as rows of one matrix.
  q_BMQH = jnp.swapaxes(q_BTNH.reshape(B, T, M, N // M, H), 1, 2).reshape(B, M, -1, H)
  logits = [
    jnp.einsum('bmqh,bmhs->bmqs', q_BMQH, k_BMHS, preferred_element_type=jnp.float32)
    for k_BMHS in keys
  ]
  logits_BMQS = jnp.concatenate(logits, axis=-1) * scale
  if softcap:
    logits_BMQS = softcap * jnp.tanh(logits_BMQS / softcap)
  logits_BMTRS = logits_BMQS.reshape(B, M, T, N // M, -1)
  lowest = jnp.finfo(jnp.float32).min
  logits_BMTRS = jnp.where(mask_BTS[:, None, :, None], logits_BMTRS, lowest)
  weights_BMTRS = jax.nn.softmax(logits_BMTRS, axis=-1).astype(q_BTNH.dtype)
  weights_BMQS, out_BMQH, start = weights_BMTRS.reshape(logits_BMQS.shape), 0.0, 0
  for v_BMSH in values:
    piece_BMQS = weights_BMQS[..., start : start + v_BMSH.shape[2]]
    out_BMQH = out_BMQH + jnp.einsum('bmqs,bmsh->bmqh', piece_BMQS, v_BMSH)
    start += v_BMSH.shape[2]
  return jnp.swapaxes(out_BMQH.reshape(B, M, T, N // M, H), 1, 2).reshape(B, T, N, H)
