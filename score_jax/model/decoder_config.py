"""The sizes and choices that make one published architecture out of the one decoder.

Gemma 2 and 3, Llama 3, Qwen 2.5 and 3, and SmolLM2 are rows of values of one dataclass
(`score_jax.model.presets`), not classes.
"""

import dataclasses

ACTIVATIONS = ('silu', 'gelu_tanh')
# 'plain' is `score_jax.model.attention.attend`; 'xla' and 'cudnn' are jax's function, the second
# one flash attention on GPUs; 'splash' is flash attention on TPUs.
KERNELS = ('plain', 'xla', 'cudnn', 'splash')


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """Sizes and choices of a decoder; the defaults are those of a plain Llama.

  Attributes:
    vocab_size: V.
    num_layers: L.
    embed_dim: D, the model's width.
    mlp_dim: F.
    num_heads: N query heads.
    num_kv_heads: M key/value heads; N must be a multiple of M.
    head_dim: H.
    rope_base: wavelength base of the rotary position embedding.
    norm_eps: added to the mean square in RMSNorm.
    tie_embeddings: the head is the embedding, transposed.
    dtype: compute type, 'float32' or 'bfloat16'; logits and softmax are float32 always.
    param_dtype: type the parameters are kept in.
    remat: 'none' keeps activations, 'block' recomputes each layer in the backward pass, 'dots'
      keeps only the results of matrix products.
    scan_unroll: layers that the compiler sees at once; num_layers unrolls the loop, which runs
      faster for small models and compiles slower.
    attention: kernel for whole rows whose tokens lie together, one of `KERNELS`; decoding takes
      'plain', as a caller must for rows with holes.
    activation: of the gate, 'silu' or 'gelu_tanh'.
    qkv_bias: queries, keys and values have a bias (Qwen 2.5).
    qk_norm: each head's query and key is normalised before it is rotated (Qwen 3, Gemma 3).
    post_norms: what a layer adds is normalised too, not only what it reads (Gemma).
    norm_plus_one: norms multiply by 1 + scale (Gemma).
    scale_embedding: the embedding times sqrt(D), rounded to the compute type (Gemma).
    query_pre_attn_scalar: attention logits are divided by the square root of this; 0 is H.
    attn_softcap: attention logits x become cap * tanh(x / cap) (Gemma 2); 0 does not cap.
    logit_softcap: the same of the final logits.
    window: a windowed layer sees the token itself and window - 1 positions before; 0: no layer is.
    window_pattern: which layers are windowed, repeated over the layers: (True, False) is every
      other one, the first included. Kept in its shortest form.
    rope_fraction: share of a head that is rotated, its first part; the rest has no position.
    rope_factor: wavelengths are stretched by this.
    rope_bands: (low, high, length): only wavelengths above length / low are stretched in full,
      those under length / high not at all, and those between partly (Llama 3.1). () stretches all.
    window_rope_base: windowed layers rotate with this base, unstretched (Gemma 3); 0: as others.
  """

  vocab_size: int
  num_layers: int
  embed_dim: int
  mlp_dim: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  rope_base: float = 10_000.0
  norm_eps: float = 1e-5
  tie_embeddings: bool = True
  dtype: str = 'float32'
  param_dtype: str = 'float32'
  remat: str = 'none'
  scan_unroll: int = 1
  attention: str = 'plain'
  activation: str = 'silu'
  qkv_bias: bool = False
  qk_norm: bool = False
  post_norms: bool = False
  norm_plus_one: bool = False
  scale_embedding: bool = False
  query_pre_attn_scalar: float = 0.0
  attn_softcap: float = 0.0
  logit_softcap: float = 0.0
  window: int = 0
  window_pattern: tuple[bool, ...] = ()
  rope_fraction: float = 1.0
  rope_factor: float = 1.0
  rope_bands: tuple[float, ...] = ()
  window_rope_base: float = 0.0

  def __post_init__(self):
    # One architecture, one config: equal models compare equal. JSON has lists for tuples.
    object.__setattr__(self, 'window_pattern', _shortest(self.window_pattern, self.num_layers))
    object.__setattr__(self, 'rope_bands', tuple(self.rope_bands))
    if self.query_pre_attn_scalar == self.head_dim:
      object.__setattr__(self, 'query_pre_attn_scalar', 0.0)
    for is_wrong, complaint in self._checks():
      if is_wrong:
        raise ValueError(f'config.model.{complaint}')

  def _checks(self) -> list[tuple[bool, str]]:
    """What could be wrong with the values: whether it is, and what to say."""
    rotary_dim, bands = self.rope_fraction * self.head_dim, self.rope_bands
    caps = (self.attn_softcap, self.logit_softcap, self.query_pre_attn_scalar)
    return [
      (
        self.num_heads % self.num_kv_heads != 0,
        f'num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}',
      ),
      (
        self.dtype not in ('float32', 'bfloat16'),
        f"dtype={self.dtype!r} is neither 'float32' nor 'bfloat16'",
      ),
      (
        self.param_dtype not in ('float32', 'bfloat16'),
        f"param_dtype={self.param_dtype!r} is neither 'float32' nor 'bfloat16'",
      ),
      (
        rotary_dim % 2 != 0 or not 0 < rotary_dim <= self.head_dim,
        f'head_dim={self.head_dim} * rope_fraction={self.rope_fraction} = {rotary_dim} must be '
        'even for rotary embedding, and at most head_dim',
      ),
      (
        self.remat not in ('none', 'block', 'dots'),
        f"remat={self.remat!r} is none of 'none', 'block', 'dots'",
      ),
      (
        self.activation not in ACTIVATIONS,
        f'activation={self.activation!r} is none of {", ".join(ACTIVATIONS)}',
      ),
      (
        self.attention not in KERNELS,
        f"attention={self.attention!r} is neither 'auto' nor one of {', '.join(KERNELS)}",
      ),
      (
        self.attn_softcap > 0 and self.attention in ('xla', 'cudnn'),
        f'attention={self.attention!r} cannot cap logits, and attn_softcap={self.attn_softcap}: '
        "take 'plain', or on a TPU 'splash'",
      ),
      (
        self.window < 0 or (self.window > 0) != any(self.window_pattern),
        f'window={self.window} with window_pattern={self.window_pattern}: a window needs layers '
        'that have it, and they need a window',
      ),
      (
        self.window_rope_base != 0 and self.window == 0,
        f'window_rope_base={self.window_rope_base}, but no layer has a window',
      ),
      (
        bands != () and not (len(bands) == 3 and 0 < bands[0] < bands[1] and bands[2] > 0),
        f'rope_bands={bands} is not (low, high, length) with 0 < low < high and 0 < length',
      ),
      (
        min(caps) < 0 or self.rope_factor <= 0,
        f'attn_softcap, logit_softcap, query_pre_attn_scalar={caps} must not be negative, '
        f'rope_factor={self.rope_factor} must be above 0',
      ),
    ]

  @property
  def is_windowed(self) -> tuple[bool, ...]:
    """Of each layer, whether it sees no further back than the window."""
    pattern = self.window_pattern or (False,)
    return tuple(pattern[i % len(pattern)] for i in range(self.num_layers))

  @property
  def query_scale(self) -> float:
    """What attention logits are multiplied by."""
    return (self.query_pre_attn_scalar or self.head_dim) ** -0.5


def _shortest(pattern, num_layers: int) -> tuple[bool, ...]:
  """The shortest pattern that, repeated, gives the same layers; () where none is windowed.

  Example:
    >>> _shortest([True, False, True, False, True], 5)
    (True, False)
  """
  if not any(pattern):
    return ()
  layers = tuple(bool(pattern[i % len(pattern)]) for i in range(num_layers))
  for size in range(1, num_layers):
    if all(layers[i] == layers[i % size] for i in range(num_layers)):
      return layers[:size]
  return layers
