"""Attention kernels against the plain sum, forward and backward, and within the decoder."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import random_params, tiny_decoder

from score_jax.core.types import Episode
from score_jax.model.decoder import Decoder
from score_jax.model.kernels import attend_rows, best_kernel, why_not
from score_jax.training.train_step import forward

B, T, N, M, H = 2, 140, 4, 2, 64  # a length that is no multiple of a block
SCALE = 0.3
# Two rows that several episodes share, and holes at the end of the second.
SEGMENT = np.repeat([[1, 2, 3, 4, 5], [1, 2, 3, 0, 0]], [50, 1, 8, 60, 21], axis=1).astype(np.int32)


@functools.cache
def drawn():
  """Queries, keys, values, and a direction."""
  rng = np.random.default_rng(0)
  return [rng.normal(size=(B, T, heads, H)).astype(np.float32) for heads in (N, M, M, N)]


@functools.cache
def by_loops(softcap, window, is_packed):
  """Attention of one head group by NumPy, a query at a time, in float64."""
  q, k, v, _ = (x.astype(np.float64) for x in drawn())
  out = np.zeros(q.shape)
  for b, t, n in np.ndindex(B, T, N):
    first = max(0, t - window + 1) if window else 0
    if is_packed:
      first = max(first, int((SEGMENT[b] == SEGMENT[b, t]).argmax()))
    m = n // (N // M)
    logits = k[b, first : t + 1, m] @ q[b, t, n] * SCALE
    if softcap:
      logits = softcap * np.tanh(logits / softcap)
    weights = np.exp(logits - logits.max())
    out[b, t, n] = weights @ v[b, first : t + 1, m] / weights.sum()
  return out


CASES = [
  (kernel, softcap, window, is_packed)
  for kernel in ('plain', 'xla', 'splash')
  for softcap, window, is_packed in (
    (0.0, 0, False),
    (0.0, 9, False),
    (2.0, 9, False),
    (0.0, 0, True),
    (2.0, 9, True),
    (0.0, 9, True),
  )
  # Splash attention takes seconds to interpret.
  if not (
    softcap and kernel == 'xla' or is_packed and window and not softcap and kernel == 'splash'
  )
]


@functools.cache
def by_kernel(kernel, softcap, window, is_packed):
  """What a kernel makes of random queries, keys and values, and gradients toward some direction."""
  *qkv, toward = drawn()
  segment = SEGMENT if is_packed else None

  def loss(qkv):
    out = attend_rows(*qkv, kernel, SCALE, softcap, window, segment, interpret=kernel == 'splash')
    return jnp.vdot(out, toward), out

  grads, out = jax.jit(jax.grad(loss, has_aux=True))(qkv)
  return out, grads


@pytest.mark.parametrize(('kernel', 'softcap', 'window', 'is_packed'), CASES)
def test_kernel(kernel, softcap, window, is_packed):
  out, grads = by_kernel(kernel, softcap, window, is_packed)
  np.testing.assert_allclose(out, by_loops(softcap, window, is_packed), atol=2e-5)
  for mine, plain in zip(grads, by_kernel('plain', softcap, window, is_packed)[1], strict=True):
    np.testing.assert_allclose(mine, plain, atol=1e-4)


@pytest.mark.parametrize('length', [T - 1, T])
def test_cudnn_gets_masks_of_even_length(monkeypatch, length):
  """It gives a mask of an odd one no gradient; what it computes is seen on a GPU alone."""
  seen, attention = [], jax.nn.dot_product_attention

  def instead(q, *kv, mask, implementation, **options):
    seen.append((implementation, q.shape[1], mask.shape[-1]))
    return attention(q, *kv, mask=mask, **options)

  monkeypatch.setattr(jax.nn, 'dot_product_attention', instead)
  qkv = [x[:, :length] for x in drawn()[:3]]
  out = attend_rows(*qkv, 'cudnn', SCALE, segment_BT=SEGMENT[:, :length])
  assert seen == [('cudnn', T, T)]
  np.testing.assert_allclose(out, by_loops(0.0, 0, True)[:, :length], atol=2e-5)


SIZES = tiny_decoder(num_layers=2, window=3, window_pattern=(True, False))


def test_decoder_attends_by_a_kernel():
  """Compacted rows of several lengths: the hidden states of tokens are the plain ones."""
  lengths, length = [9, 4, 12], 12
  rng = np.random.default_rng(2)
  is_token = np.arange(length)[None] < np.array(lengths)[:, None]
  shape = is_token.shape
  episode = Episode(
    tokens=np.where(is_token, rng.integers(1, 11, shape), 0).astype(np.int32),
    positions=np.where(is_token, np.arange(length), 0).astype(np.int32),
    is_token=is_token,
    turn=np.zeros(shape, np.int32),
    is_sampled=is_token,
    sampled_logp=np.zeros(shape, np.float32),
    is_truncated=np.zeros((3, 1), bool),
  )
  params = random_params(SIZES)
  kernel = dataclasses.replace(SIZES, attention='xla')

  @functools.partial(jax.jit, static_argnums=0)
  def hidden_and_grads(config, params):
    def loss(params):
      hidden, _ = forward(Decoder(config), params, episode)
      return jnp.sum(jnp.where(is_token[..., None], hidden, 0.0) ** 3), hidden

    grads, hidden = jax.grad(loss, has_aux=True)(params)
    return hidden, grads

  have, have_grads = hidden_and_grads(kernel, params)
  want, want_grads = hidden_and_grads(SIZES, params)
  np.testing.assert_allclose(np.asarray(have)[is_token], np.asarray(want)[is_token], atol=2e-5)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-3, 1e-2), have_grads, want_grads)
  no_window = dataclasses.replace(kernel, window=0, window_pattern=())
  other = jax.jit(lambda params: forward(Decoder(no_window), params, episode)[0])(params)
  assert (
    np.abs(np.asarray(other) - np.asarray(want))[is_token].max() > 1e-2
  )  # the window is looked at


def test_choice_and_refusal():
  assert best_kernel('tpu', 'bfloat16', 256, 50.0) == 'splash'
  assert (
    best_kernel('gpu', 'float32', 64, 0.0) == best_kernel('cpu', 'bfloat16', 64, 0.0) == 'plain'
  )
  assert best_kernel('gpu', 'bfloat16', 256, 0.0) == 'plain'
  assert best_kernel('gpu', 'bfloat16', 12, 0.0) == 'plain'
  with pytest.raises(ValueError, match="attention='cudnn' cannot cap logits"):
    dataclasses.replace(SIZES, attention='cudnn', attn_softcap=5.0)
  with pytest.raises(ValueError, match="attention='fast' is neither 'auto' nor one of"):
    dataclasses.replace(SIZES, attention='fast')


@pytest.mark.parametrize(
  ('capability', 'want'),
  [('7.5', 'plain'), ('gfx942', 'plain'), ('8.0', 'cudnn'), ('9.0', 'cudnn'), ('12.0', 'cudnn')],
)
def test_cudnn_takes_a_gpu_that_is_new_enough(monkeypatch, capability, want):
  devices = [SimpleNamespace(compute_capability=capability)]
  monkeypatch.setattr(jax, 'local_devices', lambda: devices)
  assert best_kernel('gpu', 'bfloat16', 64, 0.0) == want
  assert best_kernel('gpu', 'bfloat16', 256, 0.0) == 'plain'
  assert why_not('plain', 'gpu', 'bfloat16', 64) == ''
  # Named, it is taken as far as it goes.
  is_hopper = capability in ('9.0', '12.0')
  assert (why_not('cudnn', 'gpu', 'bfloat16', 256) == '') == is_hopper
