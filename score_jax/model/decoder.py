"""A decoder-only transformer as a pure function of (params, tokens, positions, mask, cache).

    x = embed(tokens)
    for each layer:  x = x + attention(norm(x));  x = x + mlp(norm(x))
    hidden = norm(x);  logits = project(hidden, head)

Attention goes by the mask that the caller makes from positions, or by slot in a kernel, which takes
rows whose tokens lie together. The cache lies in
pieces: a call returns the keys and values of its own tokens, and the caller puts them where it
likes (`score_jax.rollout.slots`), or has them written into the last piece. So one function
serves training, prefill and decoding. Training scans over stacked layers, which compiles fast;
decoding takes each layer by itself (`score_jax.model.decode_params`), for a scan would copy every
weight for every token.

What tells the families apart is in `DecoderConfig`. What differs from layer to layer, the window
and the rotary frequencies, is scanned beside the layers' parameters, so that they stay one loop.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from score_jax.core.logits import CappedHead
from score_jax.core.sharding import constrain
from score_jax.model import cache as kv_cache
from score_jax.model.attention import apply_rope, attend, is_within, rope_frequencies
from score_jax.model.decoder_config import DecoderConfig
from score_jax.model.kernels import attend_layer

_FAR = np.iinfo(np.int32).max  # the window of a layer that sees everything


class RMSNorm(nn.Module):
  """Divides by the root mean square over the last axis, in float32, and multiplies by a scale."""

  config: DecoderConfig
  axis: str = 'embed'

  @nn.compact
  def __call__(self, x):
    """Returns the normalised [..., D] in the compute type."""
    c = self.config
    init = nn.initializers.zeros if c.norm_plus_one else nn.initializers.ones
    init = nn.with_logical_partitioning(init, (self.axis,))
    scale = self.param('scale', init, (x.shape[-1],), jnp.dtype(c.param_dtype))
    scale = scale.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))
    x = x.astype(jnp.float32)
    x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + c.norm_eps)
    return (x * (1.0 + scale if c.norm_plus_one else scale)).astype(c.dtype)


def _adapted(module: nn.Module, name: str, y, x, into: str, out_of: str):
  """Adds (x A) B to y = x W where the parameters have adapters of W (`score_jax.model.lora`)."""
  if not module.has_variable('params', f'{name}_a'):
    return y
  a, b = (module.get_variable('params', f'{name}_{key}').astype(x.dtype) for key in 'ab')
  return y + jnp.einsum(out_of, jnp.einsum(into, x, a), b)


class Attention(nn.Module):
  """Grouped-query self-attention with rotary positions."""

  config: DecoderConfig

  @nn.compact
  def __call__(self, x_BTD, frequency_h, window, positions_BT, mask_BTS, cache, slot):
    """Returns ([B, T, D], the piece of a cache that has the keys and values of these tokens)."""
    c = self.config
    dtype = jnp.dtype(c.dtype)

    def weight(name, shape, axes, init):
      init = nn.with_logical_partitioning(init, axes)
      return self.param(name, init, shape, jnp.dtype(c.param_dtype)).astype(dtype)

    def split(name, num_heads, heads):
      """The input, projected to heads."""
      init = nn.initializers.variance_scaling(
        1.0, 'fan_in', 'truncated_normal', in_axis=0, out_axis=(1, 2)
      )
      shape, axes = (num_heads, c.head_dim), (heads, 'head_dim')
      w_DNH = weight(name, (c.embed_dim, *shape), ('embed', *axes), init)
      out_BTNH = jnp.einsum('btd,dnh->btnh', x_BTD, w_DNH)
      out_BTNH = _adapted(self, name, out_BTNH, x_BTD, 'btd,dr->btr', 'btr,rnh->btnh')
      if c.qkv_bias:
        out_BTNH = out_BTNH + weight(f'{name}_bias', shape, axes, nn.initializers.zeros)[None, None]
      if c.qk_norm and name != 'v':
        out_BTNH = RMSNorm(c, 'head_dim', name=f'{name}_norm')(out_BTNH)
      return out_BTNH if name == 'v' else apply_rope(out_BTNH, positions_BT, frequency_h)

    q_BTNH = split('q', c.num_heads, 'heads')
    k_BTMH = split('k', c.num_kv_heads, 'kv_heads')
    v_BTMH = split('v', c.num_kv_heads, 'kv_heads')
    q_BTNH = constrain(q_BTNH, ('batch', 'length', 'heads', 'head_dim'))
    k_BTMH = constrain(k_BTMH, ('batch', 'length', 'kv_heads', 'head_dim'))
    v_BTMH = constrain(v_BTMH, ('batch', 'length', 'kv_heads', 'head_dim'))
    init = nn.initializers.variance_scaling(
      1.0, 'fan_in', 'truncated_normal', in_axis=(0, 1), out_axis=2
    )
    shape = (c.num_heads, c.head_dim, c.embed_dim)
    o_NHD = weight('o', shape, ('heads', 'head_dim', 'embed'), init)
    past, kv = cache or (), kv_cache.in_order(k_BTMH, v_BTMH)
    if slot is not None:
      *past, block = past
      kv = kv_cache.write(block, kv, slot)
    if mask_BTS is None or mask_BTS.ndim == 2:
      out_BTNH = attend_layer(c, q_BTNH, k_BTMH, v_BTMH, window, mask_BTS)
    else:
      keys, values = ([piece[x].astype(dtype) for piece in (*past, kv)] for x in 'kv')
      out_BTNH = attend(q_BTNH, keys, values, mask_BTS, c.query_scale, c.attn_softcap)
    # Not n and h: einsum sums letters in their order, and would first transpose every weight.
    out_BTD = jnp.einsum('btij,ijd->btd', out_BTNH, o_NHD)
    out_BTD = _adapted(self, 'o', out_BTD, out_BTNH, 'btnh,nhr->btr', 'btr,rd->btd')
    return out_BTD, kv


class MLP(nn.Module):
  """Gated feed-forward layer: act(x gate) * (x up), projected down."""

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
    into, out_of = 'btd,dr->btr', 'btr,rf->btf'
    gate_BTF = _adapted(self, 'gate', x_BTD @ gate_DF, x_BTD, into, out_of)
    gate_BTF = nn.silu(gate_BTF) if c.activation == 'silu' else nn.gelu(gate_BTF, approximate=True)
    h_BTF = gate_BTF * _adapted(self, 'up', x_BTD @ up_DF, x_BTD, into, out_of)
    h_BTF = constrain(h_BTF, ('batch', 'length', 'mlp'))
    return _adapted(self, 'down', h_BTF @ down_FD, h_BTF, 'btf,fr->btr', 'btr,rd->btd')


class Block(nn.Module):
  """One layer, in the shape that `nn.scan` wants: carry in, (carry, keys and values) out."""

  config: DecoderConfig

  @nn.compact
  def __call__(self, x_BTD, cache, layer, positions_BT, kv_positions_BS, mask_BTS, slot):
    """Returns ([B, T, D], as `Attention` the piece of a cache); `layer` is of `_layer_data`."""
    c = self.config

    def norm(name):
      return RMSNorm(c, name=name)

    window = layer.get('window')
    if c.window and mask_BTS is not None and mask_BTS.ndim == 3:
      mask_BTS = mask_BTS & is_within(window, positions_BT, kv_positions_BS)
    normed_BTD, attn = norm('attn_norm')(x_BTD), Attention(c, name='attn')
    out_BTD, kv = attn(normed_BTD, layer['frequency'], window, positions_BT, mask_BTS, cache, slot)
    x_BTD = x_BTD + (norm('post_attn_norm')(out_BTD) if c.post_norms else out_BTD)
    out_BTD = MLP(c, name='mlp')(norm('mlp_norm')(x_BTD))
    x_BTD = x_BTD + (norm('post_mlp_norm')(out_BTD) if c.post_norms else out_BTD)
    return constrain(x_BTD, ('batch', 'length', 'activation_embed')), kv


def _layer_data(c: DecoderConfig) -> dict[str, np.ndarray]:
  """What differs between layers and is no parameter: f32[L, h] frequencies, i32[L] windows."""
  rotary_dim = int(c.rope_fraction * c.head_dim)
  far = rope_frequencies(rotary_dim, c.rope_base, c.rope_factor, c.rope_bands)
  near = rope_frequencies(rotary_dim, c.window_rope_base) if c.window_rope_base else far
  data = {'frequency': np.stack([near if windowed else far for windowed in c.is_windowed])}
  if c.window:
    windows = [c.window if windowed else _FAR for windowed in c.is_windowed]
    data['window'] = np.array(windows, np.int32)
  return data


class Decoder(nn.Module):
  """The whole model; see the module's docstring.

  Layers are stacked on a leading axis of every parameter and of the cache, unless they are
  unrolled: then each has its own parameters (`score_jax.model.decode_params`) and its own cache.
  """

  config: DecoderConfig
  is_unrolled: bool = False

  @nn.compact
  def __call__(
    self, tokens_BT, positions_BT, mask_BTS, cache=None, cache_positions_BS=None, slot=None
  ):
    """Runs the layers.

    Args:
      tokens_BT: i32[B, T].
      positions_BT: i32[B, T].
      mask_BTS: bool[B, T, S], who sees whom: S counts the cache's slots first, then the T tokens
        themselves, unless they lie in it. Without a cache also None for compacted rows, which are
        causal by slot; or i32[B, T] segments of packed rows, causal by slot within each of them.
      cache: None, or a sequence of pieces {'k': [L, B, M, H, S_i], 'v': [L, B, M, S_i, H]}; L such
        sequences, without the L axis, where layers are unrolled.
      cache_positions_BS: i32[B, sum of S_i] positions of its slots; looked at by windows alone.
      slot: None, or i32[] of the cache's last piece, where the tokens are written before anyone
        looks: S is then the cache's slots alone. A loop can so go on in the same memory, where a
        piece that is read first and written later is copied for each token.

    Returns:
      hidden_BTD in the compute type (after the last norm), the head for `project` (head_DV in the
      parameters' type, or a `CappedHead` of it), and the keys and values of these tokens, a piece
      as above, or the cache's last piece with them; L of those where layers are unrolled.

    Raises:
      ValueError: at trace time, for a cache without positions where a layer has a window.
    """
    c = self.config
    kv_positions_BS = positions_BT
    if c.window and cache is not None:
      if cache_positions_BS is None:
        raise ValueError(f'a sliding window of {c.window} goes by the positions of the cache too')
      own = [positions_BT] if slot is None else []
      kv_positions_BS = jnp.concatenate([cache_positions_BS, *own], axis=1)
    init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ('vocab', 'embed'))
    embedding_VD = Embedder(c, init, name='embedder')()
    x_BTD = jnp.take(embedding_VD, tokens_BT, axis=0).astype(c.dtype)
    if c.scale_embedding:
      x_BTD = x_BTD * np.float32(c.embed_dim**0.5).astype(jnp.dtype(c.dtype))
    x_BTD = constrain(x_BTD, ('batch', 'length', 'activation_embed'))
    inputs = (positions_BT, kv_positions_BS, mask_BTS, slot)
    run = self._unrolled if self.is_unrolled else self._scanned
    x_BTD, kv = run(x_BTD, cache, _layer_data(c), inputs)
    hidden_BTD = RMSNorm(c, name='final_norm')(x_BTD)
    head_DV = embedding_VD.T if c.tie_embeddings else Head(c, name='head')()
    return hidden_BTD, CappedHead(head_DV, c.logit_softcap) if c.logit_softcap else head_DV, kv

  def _scanned(self, x_BTD, cache, layer_data, inputs):
    c, block = self.config, Block
    if c.remat != 'none':
      policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
      block = nn.remat(Block, policy=policy if c.remat == 'dots' else None, prevent_cse=False)
    layers = nn.scan(
      block,
      variable_axes={'params': 0},
      split_rngs={'params': True},
      in_axes=(nn.broadcast if cache is None else 0, 0) + (nn.broadcast,) * 4,
      out_axes=0,
      length=c.num_layers,
      unroll=min(c.scan_unroll, c.num_layers),
      metadata_params={nn.PARTITION_NAME: 'layers'},
    )(c, name='layers')
    return layers(x_BTD, cache, jax.tree.map(jnp.asarray, layer_data), *inputs)

  def _unrolled(self, x_BTD, cache, layer_data, inputs):
    kv = []
    for i in range(self.config.num_layers):
      layer = {name: jnp.asarray(x[i]) for name, x in layer_data.items()}
      own_cache = None if cache is None else cache[i]
      block = Block(self.config, name=f'layer_{i}')
      x_BTD, kv_i = block(x_BTD, own_cache, layer, *inputs)
      kv.append(kv_i)
    return x_BTD, tuple(kv)


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
  # jit, so that a config is traced once: that takes 0.1 s, and a program asks many times.
  boxed = jax.jit(_init_boxed, static_argnums=0).eval_shape(config, jax.random.key(0))
  axes = jax.tree.map(lambda box: tuple(box.names), boxed, is_leaf=nn.meta.is_axis_metadata)
  return nn.meta.unbox(boxed), axes
