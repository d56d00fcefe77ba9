"""The decoder against loops in NumPy, and against everything that must not change its answer."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.model.attention import attend, causal_mask
from score_jax.model.cache import in_order, join
from score_jax.model.decoder import Decoder, DecoderConfig, abstract_params, init_params

CONFIG = DecoderConfig(
  vocab_size=11,
  num_layers=2,
  embed_dim=16,
  mlp_dim=32,
  num_heads=4,
  num_kv_heads=2,
  head_dim=4,
  rope_base=100.0,
)
# Two rows of eight slots; `HOLES` marks those that are no token.
TOKENS = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (2, 8), dtype=np.int32)
HOLES = np.array([[0, 0, 1, 1, 0, 0, 0, 1], [1, 0, 0, 0, 1, 0, 1, 0]], bool)


def make_params(config):
  """Random parameters whose norm scales are not 1, so that no factor can be left out unseen."""
  rng = np.random.default_rng(1)

  def draw(path, x):
    return (float(path[-1].key == 'scale') + rng.normal(0.0, 0.35, x.shape)).astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, abstract_params(config)[0])


def positions_of(is_token_BT):
  """Each token's place among its row's real tokens."""
  return np.maximum(np.cumsum(is_token_BT, axis=1) - 1, 0).astype(np.int32)


@functools.partial(jax.jit, static_argnums=0)
def run(config, params, tokens_BT, positions_BT, is_token_BT):
  mask_BTT = causal_mask(positions_BT, positions_BT, is_token_BT)
  hidden, head, _ = Decoder(config).apply({'params': params}, tokens_BT, positions_BT, mask_BTT)
  return hidden, hidden @ head


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


@pytest.mark.parametrize('tie', [True, False])
@pytest.mark.parametrize('unroll', [1, 2])
def test_forward_is_the_loops(tie, unroll):
  config = dataclasses.replace(CONFIG, tie_embeddings=tie, scan_unroll=unroll)
  params = make_params(config)
  positions = positions_of(~HOLES)
  hidden, logits = run(config, params, TOKENS, positions, ~HOLES)
  for b in range(2):
    want = numpy_row(config, params, TOKENS[b], positions[b], ~HOLES[b])
    np.testing.assert_allclose(hidden[b][~HOLES[b]], want[0][~HOLES[b]], atol=2e-5)
    np.testing.assert_allclose(logits[b][~HOLES[b]], want[1][~HOLES[b]], atol=1e-4)
  assert np.isfinite(hidden).all()  # in holes too, or a gradient would turn NaN


@pytest.mark.parametrize('remat', ['block', 'dots'])
def test_remat_changes_nothing(remat):
  params = make_params(CONFIG)

  def loss(config, params):
    _, logits = run(config, params, TOKENS, positions_of(~HOLES), ~HOLES)
    return jnp.sum(jnp.where(~HOLES[..., None], jax.nn.log_softmax(logits), 0.0)[..., 3])

  value, grads = jax.value_and_grad(loss, argnums=1)(CONFIG, params)
  config = dataclasses.replace(CONFIG, remat=remat)
  value_remat, grads_remat = jax.value_and_grad(loss, argnums=1)(config, params)
  np.testing.assert_allclose(value_remat, value, rtol=1e-6)
  assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads)) > 0.1
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), grads_remat, grads)


# The cache: pieces of the row are run one after another; each reads what the ones before wrote.


def in_pieces(params, sizes, shift=0, drop=0):
  """Hidden states of the two rows, made piece by piece.

  `shift` and `drop` are faults: positions that are late by one after the first piece, and a cache
  from which the last slots are not read.
  """
  decoder, is_token, positions = Decoder(CONFIG), ~HOLES, positions_of(~HOLES)
  apply = jax.jit(decoder.apply)
  cache, out, start = None, [], 0
  for size in sizes:
    now, seen = slice(start, start + size), slice(0, start - drop if start else 0)
    places = positions + (shift if start else 0)
    old = causal_mask(places[:, now], positions[:, seen], is_token[:, seen])
    own = causal_mask(places[:, now], places[:, now], is_token[:, now])
    if cache is not None and drop:
      cache_read = [{'k': cache['k'][..., :-drop], 'v': cache['v'][..., :-drop, :]}]
    else:
      cache_read = None if cache is None else [cache]
    mask = np.concatenate([old, own], axis=-1)
    hidden, _, kv = apply({'params': params}, TOKENS[:, now], places[:, now], mask, cache_read)
    kv = jax.tree.map(np.asarray, kv)
    cache = kv if cache is None else join(cache, kv)
    out.append(np.asarray(hidden))
    start += size
  return np.concatenate(out, axis=1)


def cache_gap(params, sizes, **fault):
  """Largest difference at a real token between pieces with a cache and one full pass."""
  full, _ = run(CONFIG, params, TOKENS, positions_of(~HOLES), ~HOLES)
  return np.abs(in_pieces(params, sizes, **fault) - np.asarray(full))[~HOLES].max()


@pytest.mark.parametrize('sizes', [(8,), (3, 3, 1, 1), (3, 1, 1, 1, 1, 1)])
def test_cache_is_full_forward(sizes):
  assert cache_gap(make_params(CONFIG), sizes) < 1e-5


@pytest.mark.parametrize('fault', [{'shift': 1}, {'drop': 1}])
def test_cache_check_can_fail(fault):
  """A position late by one, or a slot that is not read, is seen."""
  assert cache_gap(make_params(CONFIG), (3, 3, 1, 1), **fault) > 1e-2


# What must not matter.


def real_hidden(params, tokens_BT, is_token_BT, order=None):
  """Hidden states of each row's real tokens, in their order, as one array."""
  positions_BT = positions_of(is_token_BT)
  if order is not None:
    tokens_BT, positions_BT, is_token_BT = (
      x[:, order] for x in (tokens_BT, positions_BT, is_token_BT)
    )
  hidden, _ = run(CONFIG, params, tokens_BT, positions_BT, is_token_BT)
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
  params = make_params(CONFIG)
  rows = [[4, 9, 2, 0, 7], [1, 1, 8]]
  left = np.array([[4, 9, 2, 0, 7, 3, 3, 3], [1, 1, 8, 3, 3, 3, 3, 3]], np.int32)
  is_token = np.arange(8)[None] < np.array([[5], [3]])
  want = real_hidden(params, left, is_token)
  for seed in range(4):
    np.testing.assert_allclose(real_hidden(params, *with_holes(rows, 8, seed)), want, atol=1e-5)
  np.testing.assert_allclose(real_hidden(params, *with_holes(rows, 13, 9)), want, atol=1e-5)


def test_slots_may_be_permuted():
  params = make_params(CONFIG)
  want = real_hidden(params, TOKENS, ~HOLES)
  order = np.array([5, 2, 7, 0, 1, 6, 4, 3])
  np.testing.assert_allclose(real_hidden(params, TOKENS, ~HOLES, order), want, atol=1e-5)


def test_hole_that_counts_as_token_is_seen():
  """The checks above can fail: a mask that takes holes for tokens changes hidden states."""
  params = make_params(CONFIG)
  hidden, _ = run(CONFIG, params, TOKENS, positions_of(~HOLES), ~HOLES)
  everything = np.ones_like(HOLES)
  faulty, _ = run(CONFIG, params, TOKENS, positions_of(~HOLES), everything)
  assert np.abs(np.asarray(faulty - hidden))[~HOLES].max() > 1e-2


def test_bfloat16_is_near():
  config = dataclasses.replace(CONFIG, dtype='bfloat16')
  params = make_params(CONFIG)
  want, _ = run(CONFIG, params, TOKENS, positions_of(~HOLES), ~HOLES)
  hidden, _ = run(config, params, TOKENS, positions_of(~HOLES), ~HOLES)
  assert hidden.dtype == jnp.bfloat16
  error = np.abs(np.asarray(hidden, np.float32) - np.asarray(want))[~HOLES]
  assert error.mean() < 0.03 * np.abs(np.asarray(want)).mean() + 0.03


def test_blind_query_is_finite():
  q = jnp.ones((1, 1, 2, 4))
  values = jnp.arange(12.0).reshape(1, 3, 1, 4)
  kv = in_order(values, values)
  out = attend(q, [kv['k']], [kv['v']], jnp.zeros((1, 1, 3), bool))
  np.testing.assert_allclose(out[0, 0, 0], values[0, :, 0].mean(axis=0))


def test_abstract_params_are_the_params():
  config = dataclasses.replace(CONFIG, tie_embeddings=False)
  shapes, axes = abstract_params(config)
  params = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
  assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
    lambda x: (x.shape, x.dtype), shapes
  )
  ranks = jax.tree.map(len, axes, is_leaf=lambda x: isinstance(x, tuple))
  assert ranks == jax.tree.map(lambda x: x.ndim, params)


@pytest.mark.parametrize(
  ('field', 'value'), [('num_kv_heads', 3), ('head_dim', 5), ('remat', 'everything')]
)
def test_bad_sizes_are_refused(field, value):
  with pytest.raises(ValueError, match=field):
    dataclasses.replace(CONFIG, **{field: value})
