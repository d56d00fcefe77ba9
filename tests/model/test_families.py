"""What tells the families apart, against a decoder in NumPy that goes token by token.

The oracle is written from the papers' formulas in float64: one query, one head, one key at a time,
with a window that counts positions. `tests/parity` compares with `transformers`.
"""

import dataclasses
import math

import jax
import numpy as np
import pytest
from small_models import GEMMA_CHOICES, compiled_decoder, random_params, tiny_decoder

from score_jax.core.logits import CappedHead
from score_jax.core.types import compact
from score_jax.model.decoder import Decoder, abstract_params
from score_jax.model.decoder_config import DecoderConfig
from score_jax.rollout.keys import episode_keys
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.multi_turn import rollout
from score_jax.training.train_step import StepOptions, forward, score_episode

PLAIN = tiny_decoder()
# Mixtures in which every choice occurs.
MIXTURES = {
  'qwen': dict(
    qkv_bias=True, qk_norm=True, rope_factor=4.0, rope_bands=(1.0, 4.0, 12.0), scan_unroll=3
  ),
  'gemma': GEMMA_CHOICES,
  'others': dict(rope_fraction=0.5, window=2, window_pattern=(False, True), remat='block'),
}
OFF = {f.name: f.default for f in dataclasses.fields(DecoderConfig)}
# Two rows with holes in them, so that slots and positions differ.
T = 12
TOKENS = np.random.default_rng(0).integers(0, PLAIN.vocab_size, (2, T), dtype=np.int32)
IS_TOKEN = np.array(
  [[1, 1, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1]], bool
)
POSITIONS = np.maximum(np.cumsum(IS_TOKEN, axis=1) - 1, 0).astype(np.int32)


def frequency(config, windowed, i):
  """Radians by which pair i turns from one position to the next."""
  rotated = config.rope_fraction * config.head_dim
  if windowed and config.window_rope_base:
    return config.window_rope_base ** (-2 * i / rotated)
  plain = config.rope_base ** (-2 * i / rotated)
  if not config.rope_bands:
    return plain / config.rope_factor
  low, high, length = config.rope_bands
  wavelength = 2 * math.pi / plain
  if wavelength < length / high:
    return plain
  if wavelength > length / low:
    return plain / config.rope_factor
  smooth = (length / wavelength - low) / (high - low)
  return (1 - smooth) * plain / config.rope_factor + smooth * plain


def numpy_logits(c, params, tokens, positions):
  """f64[n, V] logits of a row of n tokens without holes."""
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  n, half = len(tokens), int(c.rope_fraction * c.head_dim) // 2

  def norm(x, scale):
    factor = 1 + scale if c.norm_plus_one else scale
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + c.norm_eps) * factor

  def act(x):
    if c.activation == 'silu':
      return x / (1 + np.exp(-x))
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

  def head_of(w, name, h, t, index, windowed):
    """Query, key or value `index` of token t."""
    x = h[t] @ w[name][:, index]
    x = x + w[f'{name}_bias'][index] if c.qkv_bias else x
    if name == 'v':
      return x
    x = norm(x, w[f'{name}_norm']['scale']) if c.qk_norm else x
    turned = x.copy()
    for i in range(half):
      angle = positions[t] * frequency(c, windowed, i)
      turned[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
      turned[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
    return turned

  x = p['embedder']['embedding'][tokens] * (math.sqrt(c.embed_dim) if c.scale_embedding else 1)
  pattern = c.window_pattern or (False,)
  for layer in range(c.num_layers):
    w = jax.tree.map(lambda a, i=layer: a[i], p['layers'])
    windowed = pattern[layer % len(pattern)]
    h, added = norm(x, w['attn_norm']['scale']), np.zeros_like(x)
    for index in range(c.num_heads):
      kv = index // (c.num_heads // c.num_kv_heads)
      for t in range(n):
        q = head_of(w['attn'], 'q', h, t, index, windowed)
        scores, values = [], []
        for s in range(n):
          far = positions[t] - positions[s]
          if far < 0 or (windowed and far >= c.window):
            continue
          score = q @ head_of(w['attn'], 'k', h, s, kv, windowed)
          score /= math.sqrt(c.query_pre_attn_scalar or c.head_dim)
          scores.append(
            c.attn_softcap * math.tanh(score / c.attn_softcap) if c.attn_softcap else score
          )
          values.append(head_of(w['attn'], 'v', h, s, kv, windowed))
        weights = np.exp(scores) / np.exp(scores).sum()
        added[t] += weights @ np.array(values) @ w['attn']['o'][index]
    x = x + (norm(added, w['post_attn_norm']['scale']) if c.post_norms else added)
    h = norm(x, w['mlp_norm']['scale'])
    added = (act(h @ w['mlp']['gate']) * (h @ w['mlp']['up'])) @ w['mlp']['down']
    x = x + (norm(added, w['post_mlp_norm']['scale']) if c.post_norms else added)
  logits = norm(x, p['final_norm']['scale']) @ p['embedder']['embedding'].T
  return c.logit_softcap * np.tanh(logits / c.logit_softcap) if c.logit_softcap else logits


def run(config, params):
  return compiled_decoder(config)(params, TOKENS, POSITIONS, IS_TOKEN)[1]


def rows():
  """Tokens and positions of each row's tokens, the holes left out."""
  return [(TOKENS[b][IS_TOKEN[b]], POSITIONS[b][IS_TOKEN[b]]) for b in range(2)]


@pytest.mark.parametrize('mixture', MIXTURES)
def test_forward_is_the_loops(mixture):
  config = dataclasses.replace(PLAIN, **MIXTURES[mixture])
  params = random_params(config)
  logits = np.asarray(run(config, params))
  assert np.isfinite(logits).all()
  for b, row in enumerate(rows()):
    want = numpy_logits(config, params, *row)
    np.testing.assert_allclose(logits[b][IS_TOKEN[b]], want, atol=2e-4)


@pytest.mark.parametrize('mixture', MIXTURES)
def test_every_choice_matters(mixture):
  """The check above would see each of them missing: the oracle's answer changes without it."""
  choices = MIXTURES[mixture]
  config = dataclasses.replace(PLAIN, **choices)
  params, row = random_params(config), rows()[0]
  want = numpy_logits(config, params, *row)
  for name in choices.keys() - {'scan_unroll', 'remat', 'window_pattern'}:
    off = {name: OFF[name]}
    if name == 'window':
      off |= {'window_pattern': (), 'window_rope_base': 0.0}
    if name == 'rope_factor':
      off['rope_bands'] = ()
    without = numpy_logits(dataclasses.replace(config, **off), params, *row)
    assert np.abs(without - want).max() > 1e-2, name
  if config.window:
    wider = dataclasses.replace(config, window=config.window + 1)
    assert np.abs(numpy_logits(wider, params, *row) - want).max() > 1e-2


GEMMA = dataclasses.replace(PLAIN, **MIXTURES['gemma'])


def test_sampler_and_scorer_agree():
  """With caps and windows: what the sampler says of its tokens, the scorer says too."""
  params = random_params(GEMMA)
  spec = RolloutSpec(prompt_tokens=T, turn_tokens=(7,), followup_ids=(), end_of_turn_ids=(7,))
  keys = episode_keys(0, 0, np.arange(2), np.zeros(2, np.int32))
  e = rollout(Decoder(GEMMA), spec, params, TOKENS, IS_TOKEN, keys, 0.8)
  e, options = compact(e, T + 7), StepOptions(1, baseline='none', temperature=0.8, chunk=8)

  @jax.jit
  def score(params):
    out = forward(Decoder(GEMMA), params, e)
    assert isinstance(out[1], CappedHead)
    reference = (out[0], CappedHead(out[1].head_DV / 2, out[1].cap))
    return score_episode(out, reference, e, options)

  scores, is_sampled = score(params), np.asarray(e.is_sampled)[:, 1:]
  assert is_sampled.sum() > 5
  np.testing.assert_allclose(
    scores.logp[is_sampled], np.asarray(e.sampled_logp)[:, 1:][is_sampled], atol=1e-4
  )
  assert np.abs(scores.ref_logp - scores.logp)[is_sampled].max() > 1e-2


def test_gradients_are_finite():
  def loss(params):
    return run(GEMMA, params).sum()

  grads = jax.grad(loss)(random_params(GEMMA))
  assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in jax.tree.leaves(grads))


def test_embedding_is_scaled_in_the_compute_type():
  """sqrt(12) = 3.4641 is 3.46875 in bfloat16: Gemma rounds it before it multiplies."""
  config = dataclasses.replace(PLAIN, num_layers=1, scale_embedding=True)
  params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), abstract_params(config)[0])
  params['embedder']['embedding'][0, 0] = 1.0
  params['final_norm']['scale'][:] = 1.0
  x = np.zeros((1, 1), np.int32)
  for dtype, scale, rtol in (('float32', 12**0.5, 1e-6), ('bfloat16', 3.46875, 1e-4)):
    # With an epsilon this large, the last norm leaves the size of its input readable.
    c = dataclasses.replace(config, dtype=dtype, norm_eps=4.0**10)
    hidden, _, _ = jax.jit(Decoder(c).apply)({'params': params}, x, x, np.ones((1, 1, 1), bool))
    np.testing.assert_allclose(float(hidden[0, 0, 0]) * 2**10, scale, rtol=rtol)
