"""Sizes of published models, by name, as the config.json of each says."""

import dataclasses

from score_jax.model.decoder_config import DecoderConfig

_SMOLLM2 = DecoderConfig(
  vocab_size=49_152,
  num_layers=30,
  embed_dim=576,
  mlp_dim=1536,
  num_heads=9,
  num_kv_heads=3,
  head_dim=64,
  rope_base=100_000.0,
)
_LLAMA3 = DecoderConfig(
  vocab_size=128_256,
  num_layers=32,
  embed_dim=4096,
  mlp_dim=14_336,
  num_heads=32,
  num_kv_heads=8,
  head_dim=128,
  rope_base=500_000.0,
  tie_embeddings=False,
)
_LLAMA3_BANDS = (1.0, 4.0, 8192.0)
_QWEN2_5 = DecoderConfig(
  vocab_size=151_936,
  num_layers=24,
  embed_dim=896,
  mlp_dim=4864,
  num_heads=14,
  num_kv_heads=2,
  head_dim=64,
  rope_base=1_000_000.0,
  norm_eps=1e-6,
  qkv_bias=True,
)
_QWEN3 = DecoderConfig(
  vocab_size=151_936,
  num_layers=28,
  embed_dim=1024,
  mlp_dim=3072,
  num_heads=16,
  num_kv_heads=8,
  head_dim=128,
  rope_base=1_000_000.0,
  norm_eps=1e-6,
  qk_norm=True,
)
_GEMMA2 = DecoderConfig(
  vocab_size=256_000,
  num_layers=26,
  embed_dim=2304,
  mlp_dim=9216,
  num_heads=8,
  num_kv_heads=4,
  head_dim=256,
  norm_eps=1e-6,
  activation='gelu_tanh',
  post_norms=True,
  norm_plus_one=True,
  scale_embedding=True,
  attn_softcap=50.0,
  logit_softcap=30.0,
  window=4096,
  window_pattern=(True, False),
)
_GEMMA3 = dataclasses.replace(
  _GEMMA2,
  vocab_size=262_144,
  embed_dim=1152,
  mlp_dim=6912,
  num_heads=4,
  num_kv_heads=1,
  qk_norm=True,
  attn_softcap=0.0,
  logit_softcap=0.0,
  window=512,
  window_pattern=(True,) * 5 + (False,),
  rope_base=1_000_000.0,
  window_rope_base=10_000.0,
)
# From 4B on, Gemma 3 sees images too. Its text model has 64 more tokens, and stretched positions.
_GEMMA3_TEXT = dataclasses.replace(_GEMMA3, vocab_size=262_208, window=1024, rope_factor=8.0)


def _sized(
  family: DecoderConfig, layers: int, width: int, mlp: int, heads: int, kv_heads: int, **others
) -> DecoderConfig:
  sizes = {'num_layers': layers, 'embed_dim': width, 'mlp_dim': mlp}
  sizes |= {'num_heads': heads, 'num_kv_heads': kv_heads}
  return dataclasses.replace(family, **sizes, **others)


def _llama3(factor: float, *sizes: int, **others) -> DecoderConfig:
  return _sized(_LLAMA3, *sizes, rope_factor=factor, rope_bands=_LLAMA3_BANDS, **others)


PRESETS: dict[str, DecoderConfig] = {
  'smollm2_135m': _SMOLLM2,
  'smollm2_360m': _sized(_SMOLLM2, 32, 960, 2560, 15, 5),
  'smollm2_1_7b': _sized(_SMOLLM2, 24, 2048, 8192, 32, 32, rope_base=130_000.0),
  'llama3_8b': _LLAMA3,
  'llama3_1_8b': _llama3(8.0, 32, 4096, 14_336, 32, 8),
  'llama3_2_1b': _llama3(32.0, 16, 2048, 8192, 32, 8, head_dim=64, tie_embeddings=True),
  'llama3_2_3b': _llama3(32.0, 28, 3072, 8192, 24, 8, tie_embeddings=True),
  'qwen2_5_0_5b': _QWEN2_5,
  'qwen2_5_1_5b': _sized(_QWEN2_5, 28, 1536, 8960, 12, 2, head_dim=128),
  'qwen2_5_3b': _sized(_QWEN2_5, 36, 2048, 11_008, 16, 2, head_dim=128),
  'qwen2_5_7b': _sized(
    _QWEN2_5, 28, 3584, 18_944, 28, 4, head_dim=128, vocab_size=152_064, tie_embeddings=False
  ),
  'qwen3_0_6b': _QWEN3,
  'qwen3_1_7b': _sized(_QWEN3, 28, 2048, 6144, 16, 8),
  'qwen3_4b': _sized(_QWEN3, 36, 2560, 9728, 32, 8),
  'qwen3_8b': _sized(_QWEN3, 36, 4096, 12_288, 32, 8, tie_embeddings=False),
  'gemma2_2b': _GEMMA2,
  'gemma2_9b': _sized(_GEMMA2, 42, 3584, 14_336, 16, 8),
  'gemma2_27b': _sized(
    _GEMMA2, 46, 4608, 36_864, 32, 16, head_dim=128, query_pre_attn_scalar=144.0
  ),
  'gemma3_1b': _GEMMA3,
  'gemma3_4b': _sized(_GEMMA3_TEXT, 34, 2560, 10_240, 8, 4),
  'gemma3_12b': _sized(_GEMMA3_TEXT, 48, 3840, 15_360, 16, 8),
  'gemma3_27b': _sized(
    _GEMMA3_TEXT, 62, 5376, 21_504, 32, 16, head_dim=128, query_pre_attn_scalar=168.0
  ),
}


def preset(name: str) -> DecoderConfig:
  """Looks up sizes by name.

  Args:
    name: a key of `PRESETS`.

  Returns:
    The sizes, in float32 and without remat.

  Raises:
    ValueError: for an unknown name, with the known ones.
  """
  if name not in PRESETS:
    raise ValueError(f'config.model.preset={name!r} is none of {", ".join(sorted(PRESETS))}')
  return PRESETS[name]
