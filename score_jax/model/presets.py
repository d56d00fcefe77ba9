"""Sizes of published models, by name."""

from score_jax.model.decoder import DecoderConfig

PRESETS: dict[str, DecoderConfig] = {
  # SmolLM2-135M-Instruct, as its GGUF file says.
  'smollm2_135m': DecoderConfig(
    vocab_size=49_152,
    num_layers=30,
    embed_dim=576,
    mlp_dim=1536,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    rope_base=100_000.0,
  ),
  # A Llama-architecture decoder with Gemma 2 2B's sizes (2.6e9 parameters). Gemma's own
  # mathematics (soft caps, post-norms, alternating windows) is not part of the decoder yet.
  'gemma2_2b_sized': DecoderConfig(
    vocab_size=256_128,
    num_layers=26,
    embed_dim=2304,
    mlp_dim=9216,
    num_heads=8,
    num_kv_heads=4,
    head_dim=256,
    norm_eps=1e-6,
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
    raise ValueError(f'config.model.preset={name!r} is none of {sorted(PRESETS)}')
  return PRESETS[name]
