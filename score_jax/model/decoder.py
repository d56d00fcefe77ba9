"""A decoder-only transformer as a pure function of (params, tokens, positions, mask, cache).

    x = embed(tokens)
    for each layer:  x = x + attention(norm(x));  x = x + mlp(norm(x))
    hidden = norm(x);  logits = hidden @ head

Attention goes by the mask that the caller makes from positions, never by slot. The cache is read
only: a call returns the keys and values of its own tokens, and the caller writes them where it
likes (`score_jax.procedures.rollout`). So one function serves training, prefill and decoding.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_jax.core.sharding import constrain
from score_jax.model.attention import apply_rope, attend


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """Sizes and choices of a decoder. Llama-architecture checkpoints need no more than these.

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

  def __post_init__(self):
    if self.num_heads % self.num_kv_heads:
      raise ValueError(
        f'config.model.num_heads={self.num_heads} is not a multiple of '
        f'num_kv_heads={self.num_kv_heads}'
      )
    if self.dtype not in ('float32', 'bfloat16'):
      raise ValueError(f"config.model.dtype={self.dtype!r} is neither 'float32' nor 'bfloat16'")
    if self.head_dim % 2:
      raise ValueError(f'config.model.head_dim={self.head_dim} must be even for rotary embedding')
    if self.remat not in ('none', 'block', 'dots'):
      raise ValueError(f"config.model.remat={self.remat!r} is none of 'none', 'block', 'dots'")


class RMSNorm(nn.Module):
  """Divides by the root mean square over D, in float32, and multiplies by a learned scale."""

  config: DecoderConfig

  @nn.compact
  def __call__(self, x_BTD):
    """Returns the normalised [B, T, D] in the compute type."""
    init = nn.with_logical_partitioning(nn.initializers.ones, ('embed',))
    scale_D = self.param('scale', init, (x_BTD.shape[-1],), jnp.dtype(self.config.param_dtype))
    x = x_BTD.astype(jnp.float32)
    x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.config.norm_eps)
    return (x * scale_D.astype(jnp.float32)[None, None, :]).astype(self.config.dtype)


class Attention(nn.Module):
  """Grouped-query self-attention with rotary positions."""

  config: DecoderConfig

  @nn.compact
  def __call__(self, x_BTD, positions_BT, mask_BTS, cache):
    """Returns ([B, T, D], the keys and values of these tokens as two [B, T, M, H])."""
    c = self.config
    dtype = jnp.dtype(c.dtype)

    def weight(name, shape, axes, in_axis, out_axis):
      init = nn.initializers.variance_scaling(
        1.0, 'fan_in', 'truncated_normal', in_axis=in_axis, out_axis=out_axis
      )
      init = nn.with_logical_partitioning(init, axes)
      return self.param(name, init, shape, jnp.dtype(c.param_dtype)).astype(dtype)

    kv_axes = ('embed', 'kv_heads', 'head_dim')
    q_DNH = weight(
      'q', (c.embed_dim, c.num_heads, c.head_dim), ('embed', 'heads', 'head_dim'), 0, (1, 2)
    )
    k_DMH = weight('k', (c.embed_dim, c.num_kv_heads, c.head_dim), kv_axes, 0, (1, 2))
    v_DMH = weight('v', (c.embed_dim, c.num_kv_heads, c.head_dim), kv_axes, 0, (1, 2))
    o_NHD = weight(
      'o', (c.num_heads, c.head_dim, c.embed_dim), ('heads', 'head_dim', 'embed'), (0, 1), 2
    )
    q_BTNH = apply_rope(jnp.einsum('btd,dnh->btnh', x_BTD, q_DNH), positions_BT, c.rope_base)
    k_BTMH = apply_rope(jnp.einsum('btd,dmh->btmh', x_BTD, k_DMH), positions_BT, c.rope_base)
    v_BTMH = jnp.einsum('btd,dmh->btmh', x_BTD, v_DMH)
    k_BTMH = constrain(k_BTMH, ('batch', 'length', 'kv_heads', 'head_dim'))
    v_BTMH = constrain(v_BTMH, ('batch', 'length', 'kv_heads', 'head_dim'))
    q_BTNH = constrain(q_BTNH * c.head_dim**-0.5, ('batch', 'length', 'heads', 'head_dim'))
    keys, values = [k_BTMH], [v_BTMH]
    if cache is not None:
      keys.insert(0, cache['k'].astype(dtype))
      values.insert(0, cache['v'].astype(dtype))
    out_BTNH = attend(q_BTNH, keys, values, mask_BTS)
    return jnp.einsum('btnh,nhd->btd', out_BTNH, o_NHD), {'k': k_BTMH, 'v': v_BTMH}


class MLP(nn.Module):
  """Gated feed-forward layer: silu(x gate) * (x up), projected down."""

  config: DecoderConfig

  @nn.compact
  def __call__(self, x_BTD):
    """Returns [B, T, D]."""
    c = self.config

    def weight(name, shape, axes):
      init = nn.with_logical_partitioning(nn.initializers.lecun_normal(), axes)
      return self.param(name, init, shape, jnp.dtype(c.param_dtype)).astype(c.dtype)

    gate_DF = weight('gate', (c.embed_dim, c.mlp_dim), ('embed', 'mlp'))
    up_DF = weight('up', (c.embed_dim, c.mlp_dim), ('embed', 'mlp'))
    down_FD = weight('down', (c.mlp_dim, c.embed_dim), ('mlp', 'embed'))
    h_BTF = nn.silu(x_BTD @ gate_DF) * (x_BTD @ up_DF)
    return constrain(h_BTF, ('batch', 'length', 'mlp')) @ down_FD


class Block(nn.Module):
  """One layer, in the shape that `nn.scan` wants: carry in, (carry, keys and values) out."""

  config: DecoderConfig

  @nn.compact
  def __call__(self, x_BTD, cache, positions_BT, mask_BTS):
    """Returns ([B, T, D], the layer's new keys and values)."""
    c = self.config
    attn = Attention(c, name='attn')
    out_BTD, kv = attn(RMSNorm(c, name='attn_norm')(x_BTD), positions_BT, mask_BTS, cache)
    x_BTD = x_BTD + out_BTD
    x_BTD = x_BTD + MLP(c, name='mlp')(RMSNorm(c, name='mlp_norm')(x_BTD))
    return constrain(x_BTD, ('batch', 'length', 'activation_embed')), kv


class Decoder(nn.Module):
  """The whole model; see the module's docstring.

  Layers are stacked on a leading axis of every parameter and of the cache.
  """

  config: DecoderConfig

  @nn.compact
  def __call__(self, tokens_BT, positions_BT, mask_BTS, cache=None):
    """Runs the layers.

    Args:
      tokens_BT: i32[B, T].
      positions_BT: i32[B, T].
      mask_BTS: bool[B, T, S]; S counts the cache's slots first, then the T tokens themselves.
      cache: None, or {'k', 'v'} of [L, B, S - T, M, H].

    Returns:
      hidden_BTD in the compute type (after the last norm), head_DV in the parameters' type, and
      {'k', 'v'} of [L, B, T, M, H]: the keys and values of these tokens.
    """
    c = self.config
    init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ('vocab', 'embed'))
    embedding_VD = Embedder(c, init, name='embedder')()
    x_BTD = jnp.take(embedding_VD, tokens_BT, axis=0).astype(c.dtype)
    x_BTD = constrain(x_BTD, ('batch', 'length', 'activation_embed'))
    block = Block
    if c.remat != 'none':
      policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
      block = nn.remat(Block, policy=policy if c.remat == 'dots' else None, prevent_cse=False)
    layers = nn.scan(
      block,
      variable_axes={'params': 0},
      split_rngs={'params': True},
      in_axes=(nn.broadcast if cache is None else 0, nn.broadcast, nn.broadcast),
      out_axes=0,
      length=c.num_layers,
      unroll=min(c.scan_unroll, c.num_layers),
      metadata_params={nn.PARTITION_NAME: 'layers'},
    )(c, name='layers')
    x_BTD, kv = layers(x_BTD, cache, positions_BT, mask_BTS)
    hidden_BTD = RMSNorm(c, name='final_norm')(x_BTD)
    head_DV = embedding_VD.T if c.tie_embeddings else Head(c, name='head')()
    return hidden_BTD, head_DV, kv


class Embedder(nn.Module):
  """Holds the embedding matrix."""

  config: DecoderConfig
  init: nn.initializers.Initializer

  @nn.compact
  def __call__(self):
    """Returns embedding_VD."""
    c = self.config
    shape = (c.vocab_size, c.embed_dim)
    return self.param('embedding', self.init, shape, jnp.dtype(c.param_dtype))


class Head(nn.Module):
  """Holds an output matrix that is not tied to the embedding."""

  config: DecoderConfig

  @nn.compact
  def __call__(self):
    """Returns head_DV."""
    c = self.config
    init = nn.with_logical_partitioning(nn.initializers.lecun_normal(), ('embed', 'vocab'))
    return self.param('kernel', init, (c.embed_dim, c.vocab_size), jnp.dtype(c.param_dtype))


def _init_boxed(config: DecoderConfig, key: jax.Array):
  tokens = jnp.zeros((1, 1), jnp.int32)
  return Decoder(config).init(key, tokens, tokens, jnp.ones((1, 1, 1), bool))['params']


def init_params(config: DecoderConfig, key: jax.Array) -> dict:
  """Draws random parameters.

  Args:
    config: the sizes.
    key: a PRNG key.

  Returns:
    Nested dict of arrays in `param_dtype`, layers stacked on the first axis.
  """
  return nn.meta.unbox(_init_boxed(config, key))


def abstract_params(config: DecoderConfig) -> tuple[dict, dict]:
  """Shapes and logical axes of the parameters, without allocating any.

  Args:
    config: the sizes.

  Returns:
    A tree of jax.ShapeDtypeStruct, and a tree of the same form with tuples of axis names.
  """
  boxed = jax.eval_shape(lambda key: _init_boxed(config, key), jax.random.key(0))
  axes = jax.tree.map(
    lambda box: tuple(box.names), boxed, is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata)
  )
  return nn.meta.unbox(boxed), axes
