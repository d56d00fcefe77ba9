"""Attention over whole rows, as training needs it, by the fastest kernel of each backend.

Rows are compacted or packed: tokens lie in the first slots, in order, and holes after them. Then
causality by slot is causality by position, a token sees no hole, and what a hole sees is of no
account. So no mask is made, and no [B, N, T, T] array where the kernel needs none. Where several
episodes share a row, one behind the other, they are told apart by segment: splash attention takes
segments as they are, `jax.nn.dot_product_attention` a mask of them, [B, 1, T, T], which costs cuDNN
that much memory and some time, less than the padding that it saves.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from score_jax.core.sharding import partition_spec
from score_jax.model import cache
from score_jax.model.attention import attend, causal_mask, is_within
from score_jax.model.decoder_config import DecoderConfig

_LANES = 128  # splash attention takes lengths that are multiples of this
# By compute capability of the GPU: Ampere, Hopper.
_CUDNN_HEAD_DIM = {8: 128, 9: 256}


def best_kernel(backend: str, dtype: str, head_dim: int, softcap: float) -> str:
  """The fastest kernel that a backend has for a model.

  Args:
    backend: 'cpu', 'gpu' or 'tpu'.
    dtype: the compute type.
    head_dim: H.
    softcap: of attention logits; 0 for none.

  Returns:
    One of `score_jax.model.decoder_config.KERNELS`.

  Example:
    >>> best_kernel('gpu', 'bfloat16', 64, 0.0), best_kernel('gpu', 'bfloat16', 64, 50.0)
    ('cudnn', 'plain')
  """
  # Longer heads were never timed.
  is_for_cudnn = head_dim <= min(_CUDNN_HEAD_DIM.values()) and not softcap
  kernels = ['splash', 'cudnn'] if is_for_cudnn else ['splash']
  fits = [name for name in kernels if not why_not(name, backend, dtype, head_dim)]
  return fits[0] if fits else 'plain'


def why_not(kernel: str, backend: str, dtype: str, head_dim: int) -> str:
  """Why a kernel cannot run, in words; '' where it can. Arguments as for `best_kernel`.

  Example:
    >>> why_not('splash', 'cpu', 'bfloat16', 64)
    "runs on 'tpu', not on 'cpu'"
  """
  backends = {'splash': 'tpu', 'cudnn': 'gpu'}
  wanted = backends.get(kernel, backend)
  if backend != wanted:
    return f'runs on {wanted!r}, not on {backend!r}'
  if kernel != 'cudnn':
    return ''
  if dtype != 'bfloat16':
    return f"computes in 'bfloat16', not in {dtype!r}"
  # Other devices than GPUs have none; AMD's is no number.
  capability = getattr(jax.local_devices()[0], 'compute_capability', '8.0')
  major = capability.partition('.')[0]
  longest = [n for least, n in _CUDNN_HEAD_DIM.items() if major.isdecimal() and int(major) >= least]
  if not longest:
    return f'takes an NVIDIA GPU of compute capability 8.0, not {capability}'
  if head_dim % 8 or head_dim > longest[-1]:
    return f'takes heads of a multiple of 8 up to {longest[-1]}, not of {head_dim}'
  return ''


def attend_layer(
  config: DecoderConfig,
  q_BTNH: jax.Array,
  k_BTMH: jax.Array,
  v_BTMH: jax.Array,
  window: jax.Array | None,
  segment_BT: jax.Array | None = None,
) -> jax.Array:
  """As `attend_rows`, for a layer of a decoder.

  Args:
    config: of the decoder; names the kernel.
    q_BTNH: [B, T, N, H] queries.
    k_BTMH: [B, T, M, H] keys.
    v_BTMH: [B, T, M, H] values.
    window: i32[] of this layer; layers are scanned, and a kernel's window is static.
    segment_BT: as for `attend_rows`.
  """
  c = config

  def rows(window):
    options = (c.attention, c.query_scale, c.attn_softcap, window, segment_BT)
    return lambda *qkv: attend_rows(*qkv, *options)

  if not c.window:
    return rows(0)(q_BTNH, k_BTMH, v_BTMH)
  return jax.lax.cond(window == c.window, rows(c.window), rows(0), q_BTNH, k_BTMH, v_BTMH)


def attend_rows(
  q_BTNH: jax.Array,
  k_BTMH: jax.Array,
  v_BTMH: jax.Array,
  kernel: str,
  scale: float,
  softcap: float = 0.0,
  window: int = 0,
  segment_BT: jax.Array | None = None,
  interpret: bool = False,
) -> jax.Array:
  """Causal grouped-query attention within compacted or packed rows.

  Args:
    q_BTNH: [B, T, N, H] queries.
    k_BTMH: [B, T, M, H] keys.
    v_BTMH: [B, T, M, H] values.
    kernel: one of `score_jax.model.decoder_config.KERNELS`; 'xla' and 'cudnn' cap no logits.
    scale: logits are multiplied by this.
    softcap: then squashed to cap * tanh(logits / cap); 0 leaves them.
    window: positions that a query sees, its own included; 0 for all before it.
    segment_BT: None, or i32[B, T]: a query sees its own segment alone, whose tokens lie in one
      piece, in order.
    interpret: runs 'splash' without a TPU, slowly; for tests.

  Returns:
    [B, T, N, H] in the type of the queries.
  """
  if kernel == 'splash':
    return _splash(q_BTNH, k_BTMH, v_BTMH, segment_BT, scale, softcap, window, interpret)
  T, is_same_BTT = q_BTNH.shape[1], None
  if kernel == 'cudnn' and segment_BT is not None and T % 2:
    # jax hands cuDNN a mask as a bias, and refuses the gradient of one of odd length.
    def even(x):
      return jnp.pad(x, ((0, 0), (0, 1)) + ((0, 0),) * (x.ndim - 2))

    qkv, options = map(even, (q_BTNH, k_BTMH, v_BTMH)), (kernel, scale, softcap, window)
    return attend_rows(*qkv, *options, even(segment_BT))[:, :T]
  if segment_BT is not None:
    is_same_BTT = segment_BT[:, :, None] == segment_BT[:, None]
  if kernel == 'plain':
    slots_1T = jnp.arange(T)[None]
    mask_BTT = causal_mask(slots_1T, slots_1T, jnp.ones(slots_1T.shape, bool))
    if window:
      mask_BTT &= is_within(jnp.int32(window), slots_1T, slots_1T)
    if is_same_BTT is not None:
      mask_BTT = mask_BTT & is_same_BTT
    kv = cache.in_order(k_BTMH, v_BTMH)
    return attend(q_BTNH, [kv['k']], [kv['v']], mask_BTT, scale, softcap)
  assert not softcap, kernel  # DecoderConfig refuses this
  return jax.nn.dot_product_attention(
    q_BTNH,
    k_BTMH,
    v_BTMH,
    mask=None if is_same_BTT is None else is_same_BTT[:, None],
    scale=scale,
    is_causal=True,
    local_window_size=(window - 1, 0) if window else None,
    implementation=kernel,
  )


def _splash(q_BTNH, k_BTMH, v_BTMH, segment_BT, *options) -> jax.Array:
  """Splash attention; on a mesh each device takes its own rows and heads."""
  inputs = (q_BTNH, k_BTMH, v_BTMH, segment_BT)
  if jax.sharding.get_abstract_mesh().empty:
    return _splash_local(*inputs, *options)
  heads, kv_heads = (
    partition_spec(('batch', 'length', name, 'head_dim')) for name in ('heads', 'kv_heads')
  )

  def local(*inputs):
    return _splash_local(*inputs, *options)

  # A kernel says nothing of which mesh axes its result varies over.
  specs = (heads, kv_heads, kv_heads, partition_spec(('batch', 'length')))
  return jax.shard_map(local, in_specs=specs, out_specs=heads, check_vma=False)(*inputs)


def _splash_local(q_BTNH, k_BTMH, v_BTMH, segment_BT, scale, softcap, window, interpret):
  T, N = q_BTNH.shape[1:3]
  padded = -(-T // _LANES) * _LANES
  # The kernel does not scale; it wants heads before slots.
  q_BNTH, k_BMTH, v_BMTH = (
    jnp.pad(jnp.swapaxes(x, 1, 2), ((0, 0), (0, 0), (0, padded - T), (0, 0)))
    for x in ((q_BTNH * scale).astype(q_BTNH.dtype), k_BTMH, v_BTMH)
  )
  shape = (padded, padded)
  mask = masks.LocalMask(shape, (window - 1, 0), 0) if window else masks.CausalMask(shape)
  block = next(size for size in (512, 256, _LANES) if padded % size == 0)
  names = ('q', 'kv', 'kv_compute', 'q_dkv', 'kv_dkv', 'kv_dkv_compute', 'q_dq', 'kv_dq')
  kernel = splash.make_splash_mha(
    masks.MultiHeadMask([mask] * N),
    block_sizes=splash.BlockSizes(**{f'block_{name}': block for name in names}),
    head_shards=1,
    q_seq_shards=1,
    attn_logits_soft_cap=softcap or None,
    interpret=interpret,
  )
  ids = None
  if segment_BT is not None:
    segment_BT = jnp.pad(segment_BT, ((0, 0), (0, padded - T)))
    ids = splash.SegmentIds(segment_BT, segment_BT)
  return jnp.swapaxes(jax.vmap(kernel)(q_BNTH, k_BMTH, v_BMTH, ids), 1, 2)[:, :T]
