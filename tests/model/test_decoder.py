"""The decoder against loops in NumPy, and against everything that must not change its answer."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import compiled_decoder, random_params, tiny_decoder

from score_jax.model.decoder import abstract_params, init_params

CONFIG = tiny_decoder(num_layers=2)
PARAMS = random_params(CONFIG)
# Two rows of eight slots; `HOLES` marks those that are no token.
TOKENS = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (2, 8), dtype=np.int32)
HOLES = np.array([[0, 0, 1, 1, 0, 0, 0, 1], [1, 0, 0, 0, 1, 0, 1, 0]], bool)


def positions_of(is_token_BT):
  """Each token's place among its row's real tokens."""
  return np.maximum(np.cumsum(is_token_BT, axis=1) - 1, 0).astype(np.int32)


def run(config, params, tokens_BT, positions_BT, is_token_BT):
  return compiled_decoder(config)(params, tokens_BT, positions_BT, is_token_BT)


def numpy_row(config, params, tokens_T, positions_T, is_token_T):
  """Hidden states and logits of one row in float64: one head, one query at a time."""
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  H, R = config.head_dim, config.num_heads // config.num_kv_heads

  def norm(x, scale):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + config.norm_eps) * scale

  def rotate(x):  # pairs (i, i + H/2) are complex numbers that turn with the position
    angle = positions_T[:, None] * config.rope_base ** (-2.0 * np.arange(H // 2) / H)
    z = (x[:, : H // 2] + 1j * x[:, H // 2 :]) * np.exp(1j * angle)
    return np.concatenate([z.real, z.imag], axis=1)

  x = p['embedder']['embedding'][tokens_T]
  for layer in range(config.num_layers):
    w = jax.tree.map(lambda a, i=layer: a[i], p['layers'])
    h, attended = norm(x, w['attn_norm']['scale']), np.zeros_like(x)
    for n in range(config.num_heads):
      q, k = rotate(h @ w['attn']['q'][:, n]), rotate(h @ w['attn']['k'][:, n // R])
      v = h @ w['attn']['v'][:, n // R]
      for t in np.flatnonzero(is_token_T):
        seen = np.flatnonzero(is_token_T & (positions_T <= positions_T[t]))
        weight = np.exp(k[seen] @ q[t] / np.sqrt(H))
        attended[t] += (weight / weight.sum()) @ v[seen] @ w['attn']['o'][n]
    x = x + attended
    h = norm(x, w['mlp_norm']['scale'])
    gate = h @ w['mlp']['gate']
    x = x + (gate / (1 + np.exp(-gate)) * (h @ w['mlp']['up'])) @ w['mlp']['down']
  hidden = norm(x, p['final_norm']['scale'])
  head = p['embedder']['embedding'].T if config.tie_embeddings else p['head']['kernel']
  return hidden, hidden @ head


@pytest.mark.parametrize(('tie', 'unroll'), [(True, 1), (False, 2)])
def test_forward_is_the_loops(tie, unroll):
  config = dataclasses.replace(CONFIG, tie_embeddings=tie, scan_unroll=unroll)
  params, positions = random_params(config), positions_of(~HOLES)
  hidden, logits = run(config, params, TOKENS, positions, ~HOLES)
  for b in range(2):
    want = numpy_row(config, params, TOKENS[b], positions[b], ~HOLES[b])
    np.testing.assert_allclose(hidden[b][~HOLES[b]], want[0][~HOLES[b]], atol=2e-5)
    np.testing.assert_allclose(logits[b][~HOLES[b]], want[1][~HOLES[b]], atol=1e-4)
  assert np.isfinite(hidden).all()  # in holes too, or a gradient would turn NaN


def test_remat_changes_nothing():
  @functools.partial(jax.jit, static_argnums=0)
  def value_and_grads(remat, params):
    config = dataclasses.replace(CONFIG, remat=remat)

    def loss(params):
      _, logits = run(config, params, TOKENS, positions_of(~HOLES), ~HOLES)
      return jnp.sum(jnp.where(~HOLES[..., None], jax.nn.log_softmax(logits), 0.0)[..., 3])

    return jax.value_and_grad(loss)(params)

  value, grads = value_and_grads('none', PARAMS)
  assert max(float(np.abs(g).max()) for g in jax.tree.leaves(grads)) > 0.1
  for remat in ('block', 'dots'):
    again, again_grads = value_and_grads(remat, PARAMS)
    np.testing.assert_allclose(again, value, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), again_grads, grads)


# What must not matter.


def real_hidden(tokens_BT, is_token_BT, order=None):
  """Hidden states of each row's real tokens, in their order, as one array."""
  positions_BT = positions_of(is_token_BT)
  if order is not None:
    tokens_BT, positions_BT, is_token_BT = (
      x[:, order] for x in (tokens_BT, positions_BT, is_token_BT)
    )
  hidden, _ = run(CONFIG, PARAMS, tokens_BT, positions_BT, is_token_BT)
  rows = []
  for b in range(len(tokens_BT)):
    slots = np.flatnonzero(is_token_BT[b])
    rows.append(np.asarray(hidden)[b, slots[np.argsort(positions_BT[b, slots])]])
  return np.concatenate(rows)


def with_holes(rows, num_slots, seed):
  """Rows of tokens in slots with holes at random places, and random tokens in the holes."""
  rng = np.random.default_rng(seed)
  tokens = rng.integers(0, CONFIG.vocab_size, (len(rows), num_slots), dtype=np.int32)
  is_token = np.zeros(tokens.shape, bool)
  for b, row in enumerate(rows):
    slots = np.sort(rng.choice(num_slots, len(row), replace=False))
    tokens[b, slots], is_token[b, slots] = row, True
  return tokens, is_token


def test_holes_change_nothing():
  """Holes anywhere, other tokens in them, more slots: the same hidden states."""
  rows = [[4, 9, 2, 0, 7], [1, 1, 8]]
  left = np.array([[4, 9, 2, 0, 7, 3, 3, 3], [1, 1, 8, 3, 3, 3, 3, 3]], np.int32)
  is_token = np.arange(8)[None] < np.array([[5], [3]])
  want = real_hidden(left, is_token)
  for seed in range(4):
    np.testing.assert_allclose(real_hidden(*with_holes(rows, 8, seed)), want, atol=1e-5)
  np.testing.assert_allclose(real_hidden(*with_holes(rows, 13, 9)), want, atol=1e-5)


def test_slots_may_be_permuted():
  want = real_hidden(TOKENS, ~HOLES)
  order = np.array([5, 2, 7, 0, 1, 6, 4, 3])
  np.testing.assert_allclose(real_hidden(TOKENS, ~HOLES, order), want, atol=1e-5)


def test_hole_that_counts_as_token_is_seen():
  """The checks above can fail: a mask that takes holes for tokens changes hidden states."""
  hidden, _ = run(CONFIG, PARAMS, TOKENS, positions_of(~HOLES), ~HOLES)
  everything = np.ones_like(HOLES)
  faulty, _ = run(CONFIG, PARAMS, TOKENS, positions_of(~HOLES), everything)
  assert np.abs(np.asarray(faulty - hidden))[~HOLES].max() > 1e-2


def test_bfloat16_is_near():
  config = dataclasses.replace(CONFIG, dtype='bfloat16')
  want, _ = run(CONFIG, PARAMS, TOKENS, positions_of(~HOLES), ~HOLES)
  hidden, _ = run(config, PARAMS, TOKENS, positions_of(~HOLES), ~HOLES)
  assert hidden.dtype == jnp.bfloat16
  error = np.abs(np.asarray(hidden, np.float32) - np.asarray(want))[~HOLES]
  assert error.mean() < 0.03 * np.abs(np.asarray(want)).mean() + 0.03


def test_abstract_params_are_the_params():
  config = dataclasses.replace(CONFIG, tie_embeddings=False)
  shapes, axes = abstract_params(config)
  params = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
  assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
    lambda x: (x.shape, x.dtype), shapes
  )
  ranks = jax.tree.map(len, axes, is_leaf=lambda x: isinstance(x, tuple))
  assert ranks == jax.tree.map(lambda x: x.ndim, params)
