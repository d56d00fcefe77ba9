"""GGUF files: sizes and weights come out as published, and damage is named."""

import dataclasses
import math

import gguf
import jax
import numpy as np
import pytest
from small_models import row_logits, write_gguf

from score_jax.formats import gguf as reader
from score_jax.model.decoder import DecoderConfig, abstract_params

L, D, F, N, M, H = 2, 32, 64, 4, 2, 8
V = 40
METADATA = {
  'llama.vocab_size': V,
  'llama.block_count': L,
  'llama.embedding_length': D,
  'llama.feed_forward_length': F,
  'llama.context_length': 64,
  'llama.attention.head_count': N,
  'llama.attention.head_count_kv': M,
  'llama.attention.layer_norm_rms_epsilon': 1e-5,
  'llama.rope.freq_base': 100.0,
  'llama.rope.dimension_count': H,
}


def tensors():
  """Random weights under the names and in the shapes of a GGUF file."""
  rng = np.random.default_rng(0)
  shapes = {'token_embd': (V, D), 'output_norm': (D,)}
  for i in range(L):
    shapes |= {
      f'blk.{i}.attn_norm': (D,),
      f'blk.{i}.attn_q': (N * H, D),
      f'blk.{i}.attn_k': (M * H, D),
      f'blk.{i}.attn_v': (M * H, D),
      f'blk.{i}.attn_output': (D, N * H),
      f'blk.{i}.ffn_norm': (D,),
      f'blk.{i}.ffn_gate': (F, D),
      f'blk.{i}.ffn_up': (F, D),
      f'blk.{i}.ffn_down': (D, F),
    }
  return {
    f'{name}.weight': rng.normal(1.0 if 'norm' in name else 0.0, 0.3, shape).astype(np.float32)
    for name, shape in shapes.items()
  }


def write(path, metadata=None, weights=None, **kwargs):
  """Writes a tiny model; None in `metadata` or `weights` takes that entry out."""
  return write_gguf(path, METADATA | (metadata or {}), tensors() | (weights or {}), **kwargs)


def interleaved_forward(weights, tokens):
  """A Llama in NumPy, straight from the file: rotary pairs are neighbours, as llama.cpp has them.

  Returns f64[T, V] logits of one row of tokens.
  """
  weights = {name.removesuffix('.weight'): w.astype(np.float64) for name, w in weights.items()}
  T = len(tokens)

  def norm(x, scale):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * scale

  def rotate(x_TNH):
    angle = np.arange(T)[:, None] * 100.0 ** (-np.arange(0, H, 2) / H)
    turned = (x_TNH[..., ::2] + 1j * x_TNH[..., 1::2]) * np.exp(1j * angle)[:, None]
    return np.stack([turned.real, turned.imag], -1).reshape(x_TNH.shape)

  x = weights['token_embd'][tokens]
  for i in range(L):
    w = {name.split('.')[2]: value for name, value in weights.items() if name[:6] == f'blk.{i}.'}
    h = norm(x, w['attn_norm'])
    q, k, v = (h @ w[f'attn_{name}'].T for name in 'qkv')
    q, k, v = rotate(q.reshape(T, N, H)), rotate(k.reshape(T, M, H)), v.reshape(T, M, H)
    k, v = np.repeat(k, N // M, axis=1), np.repeat(v, N // M, axis=1)
    score = np.einsum('tnh,snh->nts', q, k) / math.sqrt(H)
    score = np.exp(np.where(np.tril(np.ones((T, T), bool)), score, -np.inf))
    score /= score.sum(-1, keepdims=True)
    x = x + np.einsum('nts,snh->tnh', score, v).reshape(T, N * H) @ w['attn_output'].T
    h = norm(x, w['ffn_norm'])
    gate = h @ w['ffn_gate'].T
    x = x + (gate / (1 + np.exp(-gate)) * (h @ w['ffn_up'].T)) @ w['ffn_down'].T
  return norm(x, weights['output_norm']) @ weights.get('output', weights['token_embd']).T


@pytest.mark.parametrize('is_tied', [True, False])
def test_a_file_computes_what_it_says(tmp_path, is_tied):
  """The decoder on the imported weights equals llama.cpp's formulas on the file's own."""
  weights = tensors()
  if not is_tied:
    weights['output.weight'] = np.random.default_rng(1).normal(size=(V, D)).astype(np.float32)
  path = write(tmp_path / 'tiny.gguf', weights=weights)
  config = reader.read_config(path)
  assert config == DecoderConfig(
    vocab_size=V,
    num_layers=L,
    embed_dim=D,
    mlp_dim=F,
    num_heads=N,
    num_kv_heads=M,
    head_dim=H,
    rope_base=100.0,
    norm_eps=1e-5,
    tie_embeddings=is_tied,
  )
  tokens = [5, 30, 3, 39, 5, 9]
  ours = row_logits(config, reader.read_params(path, config), tokens)
  np.testing.assert_allclose(ours, interleaved_forward(weights, tokens), atol=2e-5)


def test_query_and_key_rows_by_hand(tmp_path):
  """Each row holds its own number, so the order of rows can be read off."""
  rows = np.broadcast_to(np.arange(N * H, dtype=np.float32)[:, None], (N * H, D))
  path = write(
    tmp_path / 'tiny.gguf',
    weights={
      'blk.1.attn_q.weight': rows.copy(),
      'blk.1.attn_k.weight': rows[: M * H].copy(),
      'blk.1.attn_v.weight': rows[: M * H].copy(),
      'blk.1.attn_output.weight': rows.T.copy(),
    },
  )
  attn = reader.read_params(path, reader.read_config(path))['layers']['attn']
  assert attn['q'][1, 7, 0].tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
  assert attn['q'][1, 7, 3].tolist() == [24, 26, 28, 30, 25, 27, 29, 31]
  assert attn['k'][1, 7, 1].tolist() == [8, 10, 12, 14, 9, 11, 13, 15]
  assert attn['v'][1, 7, 1].tolist() == [8, 9, 10, 11, 12, 13, 14, 15]
  assert attn['o'][1, 1, :, 7].tolist() == [8, 9, 10, 11, 12, 13, 14, 15]


def test_tree_types_and_shapes_are_the_decoders(tmp_path):
  path = write(tmp_path / 'tiny.gguf')
  config = reader.read_config(path)
  params = reader.read_params(path, config, 'bfloat16')
  expected, _ = abstract_params(dataclasses.replace(config, param_dtype='bfloat16'))
  expected = jax.tree.map(lambda x: (x.shape, x.dtype), expected)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == expected
  path.unlink()  # the arrays are copies, not views of the file
  assert all(leaf.flags.writeable for leaf in jax.tree.leaves(params))


def test_quantised_tensors(tmp_path):
  name, weights = 'blk.0.ffn_up.weight', tensors()
  packed = gguf.quantize(weights[name], gguf.GGMLQuantizationType.Q8_0)
  path = write(
    tmp_path / 'tiny.gguf',
    weights={name: packed, 'token_embd.weight': weights['token_embd.weight'].astype(np.float16)},
    raw_types={name: gguf.GGMLQuantizationType.Q8_0},
  )
  params = reader.read_params(path, reader.read_config(path))
  # One step of an 8-bit scale is the block's largest value / 127.
  np.testing.assert_allclose(params['layers']['mlp']['up'][0].T, weights[name], atol=1.2 / 127)
  embedding = params['embedder']['embedding']
  np.testing.assert_allclose(embedding, weights['token_embd.weight'], rtol=1e-3)


@pytest.mark.parametrize(
  ('metadata', 'complaint'),
  [
    ({'llama.rope.scaling.type': 'linear'}, "rope.scaling.type='linear' changes what"),
    ({'llama.rope.scaling.factor': 2.0}, 'rope.scaling.factor=2.0 changes what'),
    ({'llama.rope.dimension_count': 4}, 'rope.dimension_count is 4, but the head size is 8'),
    ({'llama.attention.value_length': 4}, 'value_length is 4, but the head size is 8'),
    ({'llama.expert_count': 8}, 'expert_count=8 changes what'),
    ({'llama.attention.sliding_window': 32}, 'sliding_window=32 changes what'),
    ({'llama.attention.new_idea': 1.5}, 'new_idea=1.5 is unknown here'),
    ({'llama.block_count': None}, 'llama.block_count is missing'),
    ({'llama.block_count': 'two'}, "llama.block_count is 'two'"),
    ({'llama.block_count': 0}, "llama.block_count is '0'"),
    ({'llama.attention.head_count_kv': [2, 1]}, r"head_count_kv is '\[2, 1\]'"),
    ({'llama.attention.head_count_kv': 3}, 'num_heads=4 is not a multiple of num_kv_heads=3'),
    ({'llama.attention.head_count': 5}, 'embedding_length=32 is not a multiple of head_count=5'),
    ({'split.count': 2}, 'is one of 2 parts'),
  ],
)
def test_config_errors(tmp_path, metadata, complaint):
  path = write(tmp_path / 'tiny.gguf', metadata)
  with pytest.raises(ValueError, match=f'tiny.gguf.*{complaint}'):
    reader.read_config(path)


def test_unknown_architecture(tmp_path):
  path = write(tmp_path / 'tiny.gguf', architecture='mamba')
  with pytest.raises(ValueError, match=r"tiny\.gguf: architecture 'mamba'; only 'llama'"):
    reader.read_config(path)


def test_neutral_metadata_is_let_through(tmp_path):
  neutral = {'llama.rope.scaling.type': 'none', 'llama.expert_count': 0, 'general.name': 'x'}
  tokens = [str(i) for i in range(V)]  # as many as the model has, where its size is not said
  neutral |= {'llama.vocab_size': None, 'tokenizer.ggml.tokens': tokens}
  path = write(tmp_path / 'tiny.gguf', neutral)
  assert reader.read_config(path).vocab_size == V


@pytest.mark.parametrize(
  ('weights', 'complaint'),
  [
    ({'blk.1.ffn_up.weight': None}, r'blk\.1\.ffn_up\.weight of shape \(64, 32\) is missing'),
    (
      {'blk.1.attn_k.weight': np.zeros((N * H, D), np.float32)},
      r'blk\.1\.attn_k\.weight has shape \(32, 32\), but the configuration asks for \(16, 32\)',
    ),
    (
      {'blk.0.attn_q.bias': np.zeros((D,), np.float32)},
      r'no place for tensor blk\.0\.attn_q\.bias',
    ),
    ({'rope_freqs.weight': np.zeros((4,), np.float32)}, r'no place for tensor rope_freqs\.weight'),
    ({'output_norm.weight': np.zeros((D,), np.int32)}, r'output_norm\.weight is of type I32'),
  ],
)
def test_tensor_errors(tmp_path, weights, complaint):
  path = write(tmp_path / 'tiny.gguf', weights=weights)
  with pytest.raises(ValueError, match=rf'tiny\.gguf: .*{complaint}'):
    reader.read_params(path, reader.read_config(path))


def test_smollm2(smollm2_gguf, tmp_path):
  with reader.open_gguf(smollm2_gguf) as file:
    config = reader.read_config(file)
    tokenizer = reader.read_tokenizer(file)
    params = reader.read_params(file, config)
  sizes = (config.vocab_size, config.num_layers, config.embed_dim, config.mlp_dim)
  assert sizes == (49_152, 30, 576, 1536)
  assert (config.num_heads, config.num_kv_heads, config.head_dim) == (9, 3, 64)
  assert (config.rope_base, config.norm_eps) == (100_000.0, 1e-5)
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 134_515_008
  assert tokenizer.vocab_size == 49_152
  assert tokenizer.end_of_turn_ids == (2, 0)
  assert tokenizer.encode('1234') == [33, 34, 35, 36]
  assert tokenizer.followup_ids('again') == [198, 1, 4093, 198, 24775, 2, 198, 1, 520, 9531, 198]
  # The model is read right if it knows what comes next.
  prompt = tokenizer.encode('The capital of France is')
  best = int(np.argmax(row_logits(config, params, prompt)[-1]))
  assert tokenizer.decode([best]) == ' Paris'
