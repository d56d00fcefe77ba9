"""Operations against XLA's own count and by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.core.logits import project
from score_jax.model import flops
from score_jax.model.attention import causal_mask, is_within
from score_jax.model.decoder import Decoder, DecoderConfig, abstract_params

# Heads do not add up to the width, and queries are more than keys: no factor hides another.
SIZES = DecoderConfig(512, 2, 128, 512, num_heads=4, num_kv_heads=2, head_dim=32, scan_unroll=2)
B, T = 2, 64


def programs():
  """The decoder's forward pass with all logits, and its gradient, as XLA lowered them."""

  def logits(params, tokens_BT):
    positions_BT = jnp.broadcast_to(jnp.arange(T), (B, T))
    mask_BTT = causal_mask(positions_BT, positions_BT, jnp.ones((B, T), bool))
    variables = {'params': params}
    hidden_BTD, head, _ = Decoder(SIZES).apply(variables, tokens_BT, positions_BT, mask_BTT)
    return project(hidden_BTD, head)

  def loss(params, tokens_BT):
    return jax.nn.logsumexp(logits(params, tokens_BT), axis=-1).sum()

  arguments = abstract_params(SIZES)[0], jax.ShapeDtypeStruct((B, T), jnp.int32)
  return [jax.jit(f).lower(*arguments) for f in (logits, jax.grad(loss))]


def test_flops_are_xlas():
  """The plain attention computes all T * T pairs of a row, seen or not."""
  work = (B * T, B * T, SIZES.num_layers * B * T * T)
  forward, gradient = (p.compile().cost_analysis()['flops'] for p in programs())
  assert flops.forward_flops(SIZES, *work) == pytest.approx(forward, rel=0.03)
  assert flops.gradient_flops(SIZES, *work) == pytest.approx(gradient, rel=0.03)
  # Half the pairs, or a head that nobody needs, would be seen.
  assert flops.forward_flops(SIZES, B * T, 0, work[2]) < 0.95 * forward
  assert flops.forward_flops(SIZES, B * T, B * T, 0) < 0.95 * forward


def test_flops_by_hand():
  """One layer of width 2 with one head of size 2, F = 3, V = 5; two rows, G = 2."""
  c = DecoderConfig(5, 1, 2, 3, num_heads=1, num_kv_heads=1, head_dim=2, qkv_bias=True)
  assert flops.matmul_weights(c) == (4 * 2 * 2 + 3 * 2 * 3, 2 * 5)
  lengths, prompts, sampled = np.array([3, 4]), np.array([2, 2]), 3
  assert flops.seen_pairs(c, lengths) == (1 + 2 + 3) + (1 + 2 + 3 + 4)
  forward = 2 * (34 * 7 + 10 * 3) + 4 * 2 * 16
  assert flops.update_flops(c, lengths, sampled) == 4 * forward
  # With adapters no weight has a gradient, attention has one as before.
  assert flops.update_flops(c, lengths, sampled, True) == 3 * forward + 4 * 2 * 16
  one_prompt = 2 * 34 * 2 + 4 * 2 * 3
  assert flops.sampling_flops(c, lengths, prompts, sampled, 2) == forward - one_prompt
  assert flops.sampling_flops(c, lengths, prompts, sampled) == forward


@pytest.mark.parametrize(('window', 'pattern'), [(0, ()), (3, (True, False)), (9, (True,))])
def test_seen_pairs_are_the_masks(window, pattern):
  c = dataclasses.replace(SIZES, num_layers=3, window=window, window_pattern=pattern)
  lengths = np.array([1, 3, 7])
  positions = jnp.broadcast_to(jnp.arange(7), (3, 7))
  is_token = jnp.arange(7)[None] < lengths[:, None]
  mask = causal_mask(positions, positions, is_token) & is_token[:, :, None]
  near = mask & is_within(jnp.int32(window), positions, positions)
  counted = sum(int((near if windowed else mask).sum()) for windowed in c.is_windowed)
  assert flops.seen_pairs(c, lengths) == counted


@pytest.mark.parametrize(
  ('kind', 'tflops'),
  [
    *[('TPU v4', 275), ('TPU v5 lite', 197), ('TPU v5', 459), ('TPU v5p', 459)],
    *[('TPU v6 lite', 918), ('NVIDIA A100-SXM4-80GB', 312), ('NVIDIA H100 80GB HBM3', 989)],
    *[('NVIDIA H100 PCIe', 756), ('NVIDIA H200', 989)],
  ],
)
def test_peaks(kind, tflops):
  assert flops.peak_flops(kind) == tflops * 1e12


@pytest.mark.parametrize('kind', ['cpu', 'TPU v3', 'TPU7x', 'NVIDIA L4', ''])
def test_no_peak_is_made_up(kind):
  assert flops.peak_flops(kind) is None
