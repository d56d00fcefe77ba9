"""Attention by position: masks, rotary embedding, and the weighted sum itself."""

import jax
import jax.numpy as jnp


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


def apply_rope(x_BTNH: jax.Array, positions_BT: jax.Array, base: float) -> jax.Array:
  """Rotates halves of each head by an angle that grows with the position.

  Args:
    x_BTNH: [B, T, N, H] queries or keys.
    positions_BT: i32[B, T].
    base: wavelength base.

  Returns:
    [B, T, N, H] in the type of `x_BTNH`; computed in float32.

  Source: arXiv:2104.09864, in the half-split layout of Llama checkpoints.
  """
  half = x_BTNH.shape[-1] // 2
  frequency_h = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
  angle_BT1h = positions_BT[:, :, None, None].astype(jnp.float32) * frequency_h[None, None, None]
  sin, cos = jnp.sin(angle_BT1h), jnp.cos(angle_BT1h)
  a, b = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BTNH.dtype)


def attend(q_BTNH, keys, values, mask_BTS) -> jax.Array:
  """Grouped-query attention over keys that lie in one or two pieces (cache, own tokens).

  The pieces are joined at the logits, so that the cache is never copied.

  Args:
    q_BTNH: [B, T, N, H] queries, already scaled.
    keys: sequence of [B, S_i, M, H].
    values: sequence of [B, S_i, M, H].
    mask_BTS: bool[B, T, S], S the sum of the S_i. A query that sees nothing gets a mean of all
      values, finite and unused: such queries are holes.

  Returns:
    [B, T, N, H] in the type of the queries; softmax in float32.
  """
  B, T, N, H = q_BTNH.shape
  M = keys[0].shape[2]
  q_BTMRH = q_BTNH.reshape(B, T, M, N // M, H)
  logits_BMRTS = jnp.concatenate(
    [jnp.einsum('btmrh,bsmh->bmrts', q_BTMRH, k, preferred_element_type=jnp.float32) for k in keys],
    axis=-1,
  )
  lowest = jnp.finfo(jnp.float32).min
  logits_BMRTS = jnp.where(mask_BTS[:, None, None], logits_BMRTS, lowest)
  weights_BMRTS = jax.nn.softmax(logits_BMRTS, axis=-1).astype(q_BTNH.dtype)
  out_BTMRH, start = 0.0, 0
  for v in values:
    piece = weights_BMRTS[..., start : start + v.shape[1]]
    out_BTMRH = out_BTMRH + jnp.einsum('bmrts,bsmh->btmrh', piece, v)
    start += v.shape[1]
  return out_BTMRH.reshape(B, T, N, H)
