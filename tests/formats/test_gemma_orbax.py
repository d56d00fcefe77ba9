"""Gemma's own checkpoints: a small one, in the names and shapes of google-deepmind/gemma.

The oracle computes with the arrays as that project lays them out, one einsum each, so a transposed
or swapped array is seen in the logits.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from small_models import row_logits

from score_jax.formats import gemma_orbax
from score_jax.model.presets import PRESETS

V, L, D, F, N, M, H, T = 13, 4, 8, 12, 4, 2, 6, 9
ROWS = V + 3  # published embeddings have rows beyond the vocabulary
SIZES = dict(
  vocab_size=V, num_layers=L, embed_dim=D, mlp_dim=F, num_heads=N, num_kv_heads=M, head_dim=H
)
GEMMA2 = dataclasses.replace(PRESETS['gemma2_2b'], **SIZES, window=4, attn_softcap=2.0)
GEMMA3 = dataclasses.replace(
  PRESETS['gemma3_4b'], **SIZES, window=4, window_pattern=(True, True, False), rope_base=300.0
)
TINY = {'gemma2': GEMMA2, 'gemma3': GEMMA3}


def published(config):
  """The flat tree in which the weights were published."""
  rng = np.random.default_rng(0)

  def draw(*shape):
    return rng.normal(0.0, 0.4, shape).astype(np.float32)

  tree = {
    'transformer/embedder': {'input_embedding': draw(ROWS, D)},
    'transformer/final_norm': {'scale': draw(D)},
  }
  for i in range(L):
    layer = f'transformer/layer_{i}'
    tree |= {
      f'{layer}/attn/q_einsum': {'w': draw(N, D, H)},
      f'{layer}/attn/kv_einsum': {'w': draw(2, M, D, H)},
      f'{layer}/attn/attn_vec_einsum': {'w': draw(N, H, D)},
      f'{layer}/mlp/gating_einsum': {'w': draw(2, F, D)},
      f'{layer}/mlp/linear': {'w': draw(F, D)},
      f'{layer}/pre_attention_norm': {'scale': draw(D)},
      f'{layer}/post_attention_norm': {'scale': draw(D)},
      f'{layer}/pre_ffw_norm': {'scale': draw(D)},
      f'{layer}/post_ffw_norm': {'scale': draw(D)},
    }
    if config.qk_norm:
      tree[f'{layer}/attn/_query_norm'] = {'scale': draw(H)}
      tree[f'{layer}/attn/_key_norm'] = {'scale': draw(H)}
  return tree


def nested(tree):
  """The same tree as that project's trainer writes it."""
  out = {}
  for path, leaves in tree.items():
    *names, last = path.removeprefix('transformer/').split('/')
    inner = out
    for name in names:
      inner = inner.setdefault(name, {})
    inner[last] = leaves['w'] if last in ('gating_einsum', 'linear') else leaves
  return out


def save(folder, tree):
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(folder, tree)
  return folder


def oracle(config, tree, tokens):
  """f64[T, V] logits in that project's einsums."""
  tree = jax.tree.map(lambda x: np.asarray(x, np.float64), tree)
  n = len(tokens)

  def norm(x, scale):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * (1 + scale['scale'])

  def rope(x, base, factor):
    angle = np.arange(n)[:, None] / factor * base ** (-2.0 * np.arange(H // 2) / H)
    z = (x[..., : H // 2] + 1j * x[..., H // 2 :]) * np.exp(1j * angle)[:, None]
    return np.concatenate([z.real, z.imag], -1)

  table = tree['transformer/embedder']['input_embedding'][:V]
  x = table[tokens] * math.sqrt(D)
  for i in range(L):
    w = {k.removeprefix(f'transformer/layer_{i}/'): v for k, v in tree.items() if f'_{i}/' in k}
    windowed = config.is_windowed[i]
    h = norm(x, w['pre_attention_norm'])
    q = np.einsum('TD,NDH->TNH', h, w['attn/q_einsum']['w'])
    k, v = np.einsum('SD,CKDH->CSKH', h, w['attn/kv_einsum']['w'])
    if config.qk_norm:
      q, k = norm(q, w['attn/_query_norm']), norm(k, w['attn/_key_norm'])
    near = windowed and config.window_rope_base
    base, factor = (near, 1) if near else (config.rope_base, config.rope_factor)
    q, k = rope(q, base, factor) / math.sqrt(H), rope(k, base, factor)
    k, v = np.repeat(k, N // M, 1), np.repeat(v, N // M, 1)
    logits = np.einsum('TNH,SNH->NTS', q, k)
    if config.attn_softcap:
      logits = config.attn_softcap * np.tanh(logits / config.attn_softcap)
    back = np.arange(n)[:, None] - np.arange(n)
    seen = (back >= 0) & (back < (config.window if windowed else n))
    p = np.exp(np.where(seen, logits, -np.inf))
    out = np.einsum('NTS,SNH->TNH', p / p.sum(-1, keepdims=True), v)
    out = np.einsum('TNH,NHD->TD', out, w['attn/attn_vec_einsum']['w'])
    x = x + norm(out, w['post_attention_norm'])
    gate, up = np.einsum('TD,CFD->CTF', norm(x, w['pre_ffw_norm']), w['mlp/gating_einsum']['w'])
    gate = 0.5 * gate * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
    x = x + norm((gate * up) @ w['mlp/linear']['w'], w['post_ffw_norm'])
  logits = norm(x, tree['transformer/final_norm']) @ table.T
  return (
    config.logit_softcap * np.tanh(logits / config.logit_softcap)
    if config.logit_softcap
    else logits
  )


def read(folder):
  config = gemma_orbax.read_config(folder, TINY)
  return config, gemma_orbax.nest(gemma_orbax.iter_params(folder, config))


@pytest.mark.parametrize('name', TINY)
def test_a_checkpoint_computes_what_it_says(tmp_path, name):
  tree, tokens = published(TINY[name]), np.array([3, 1, 12, 0, 7, 7, 2, 9, 4], np.int32)
  config, params = read(save(tmp_path / 'flat', tree))
  assert config == TINY[name]
  np.testing.assert_allclose(
    row_logits(config, params, tokens), oracle(config, tree, tokens), atol=1e-4
  )
  _, same = read(save(tmp_path / 'nested', nested(tree)))
  jax.tree.map(np.testing.assert_array_equal, same, params)


def test_gates_the_other_way_round_and_bfloat16(tmp_path):
  tree = published(GEMMA2)
  _, want = read(save(tmp_path / 'a', tree))
  for path, leaves in tree.items():
    if path.endswith('gating_einsum'):
      leaves['w'] = np.swapaxes(leaves['w'], 1, 2)
  tree = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree)
  _, params = read(save(tmp_path / 'b', tree))
  assert all(x.dtype == np.float32 for x in jax.tree.leaves(params))
  rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(np.float32), want)
  jax.tree.map(np.testing.assert_array_equal, params, rounded)


def test_images_are_left_out(tmp_path):
  tree = published(GEMMA3) | {'SigLiPFromPatches_0/siglip_encoder': {'w': np.ones(3)}}
  tree['transformer/embedder']['mm_input_projection'] = np.ones((2, D))
  assert read(save(tmp_path / 'a', tree))[0] == GEMMA3


def test_a_smaller_embedding_is_the_vocabulary(tmp_path):
  """The Hugging Face form of Gemma 3 has rows for image tokens; Gemma's own has not."""
  save(tmp_path / 'a', published(GEMMA3))
  presets = {'gemma3': dataclasses.replace(GEMMA3, vocab_size=ROWS + 5)}
  assert gemma_orbax.read_config(tmp_path / 'a', presets).vocab_size == ROWS


def drop(tree, path):
  del tree[path]


@pytest.mark.parametrize(
  ('edit', 'complaint'),
  [
    (lambda t: drop(t, 'transformer/layer_2/mlp/linear'), 'array layer_2/mlp/linear is missing'),
    (
      lambda t: t['transformer/layer_1/attn/q_einsum'].update(w=np.ones((N, H, D))),
      r'transformer/layer_1/attn/q_einsum/w has shape \(4, 6, 8\), but .* ask for \(4, 8, 6\)',
    ),
    (
      lambda t: t['transformer/layer_1/attn/kv_einsum'].update(w=np.ones((3, M, D, H))),
      r'kv_einsum/w has shape \(3, 2, 8, 6\), but .* ask for two of \(2, 8, 6\)',
    ),
    (
      lambda t: t['transformer/final_norm'].update(scale=np.ones(D, np.int32)),
      'final_norm/scale is of type int32',
    ),
    (
      lambda t: t.update({'transformer/layer_0/new': {'w': np.ones(2)}}),
      'layer_0/new/w has no place',
    ),
  ],
)
def test_damage_is_named(tmp_path, edit, complaint):
  tree = published(GEMMA2)
  edit(tree)
  save(tmp_path / 'a', tree)
  with pytest.raises(ValueError, match=complaint):
    next(gemma_orbax.iter_params(tmp_path / 'a', GEMMA2))


def test_other_checkpoints(tmp_path):
  with pytest.raises(ValueError, match='is no Orbax checkpoint'):
    gemma_orbax.read_config(tmp_path)
  save(tmp_path / 'a', {'w': np.ones(2)})
  with pytest.raises(ValueError, match='is no checkpoint of a Gemma 2 or 3'):
    gemma_orbax.read_config(tmp_path / 'a')
  save(tmp_path / 'b', published(GEMMA2))
  with pytest.raises(
    ValueError, match="no Gemma of .* has the sizes {'num_layers': 4, 'embed_dim'"
  ):
    gemma_orbax.read_config(tmp_path / 'b')
