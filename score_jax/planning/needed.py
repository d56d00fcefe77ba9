"""Bytes of main memory and FLOPs that the mathematics needs, whatever the program does.

FLOPs are those of `score_jax.model.flops`. Of bytes there are counted, each once and in the
compute type,

    decoding   a step's weights; of each token, the keys and values that it sees, and its own; those
               of a prompt once for the samples that share it and are at the same token
    an update  of each pass, the weights, and what goes into and comes out of each product of a
               layer; then gradient, weights and moments, read and written

as a program would that keeps everything else (norms, rotations, logits, attention's own matrix) on
the chip. A pass is the policy's forward, the reference's, or half of the backward one.
"""

import math
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from score_jax.model.decoder_config import DecoderConfig
from score_jax.model.flops import forward_flops, matmul_weights, update_flops
from score_jax.planning.lengths import Lengths


def decode_needs(
  config: DecoderConfig, mesh: Mapping[str, int], lengths: Lengths, slots: int
) -> dict[str, float]:
  """What sampling the answers needs of each chip; prompts and instructions are not sampled.

  The steps are the longest episode's, or those that all tokens fill with no slot idle.

  Args:
    config: of the decoder.
    mesh: sizes of its axes.
    lengths: of the episodes.
    slots: of all devices.

  Returns:
    'flops' and 'traffic_bytes'.
  """
  sampled, c = lengths.sampled, config
  seen, shared = _seen(c, lengths)
  steps = max(int(lengths.answers.sum(axis=1).max()), -(-sampled // slots))
  kv_bytes = 2 * c.num_kv_heads * c.head_dim * jnp.dtype(c.dtype).itemsize  # of a token and layer
  touched = seen - shared + sampled * c.num_layers
  chips = math.prod(mesh.values())
  return {
    'flops': forward_flops(c, sampled, sampled, seen) / chips,
    'traffic_bytes': steps * weight_bytes(c, mesh) + touched * kv_bytes / chips,
  }


def weight_bytes(config: DecoderConfig, mesh: Mapping[str, int]) -> float:
  """Bytes of the weights that each chip multiplies a token with, in the compute type."""
  return sum(matmul_weights(config)) * jnp.dtype(config.dtype).itemsize / mesh['tensor']


def _seen(c: DecoderConfig, lengths: Lengths) -> tuple[int, int]:
  """Pairs of a sampled token with one that it sees, over all layers; and those that are shared.

  Shared are pairs with a prompt's token whose keys and values another sample reads anyway, which is
  at the same token of its turn.
  """
  first_B, seen, shared = lengths.prompts, 0, 0
  for answers_B, given in zip(lengths.answers.T, (*lengths.inputs, 0), strict=True):
    index_BN = np.arange(answers_B.max())[None]
    is_sampled_BN = index_BN < answers_B[:, None]
    sees_BN = first_B[:, None] + index_BN + 1
    for windowed in set(c.is_windowed):
      layers = c.is_windowed.count(windowed)
      near_BN = np.minimum(sees_BN, c.window) if windowed else sees_BN
      prompt_BN = np.maximum(lengths.prompts[:, None] - (sees_BN - near_BN), 0) * is_sampled_BN
      once_PN = prompt_BN.reshape(-1, lengths.samples, prompt_BN.shape[1]).max(axis=1)
      seen += layers * int((near_BN * is_sampled_BN).sum())
      shared += layers * int(prompt_BN.sum() - once_PN.sum())
    first_B = first_B + answers_B + given
  return seen, shared


def update_needs(
  config: DecoderConfig,
  mesh: Mapping[str, int],
  lengths: Lengths,
  trained: int,
  optimizer: int,
  has_adapters: bool = False,
) -> dict[str, float]:
  """What an update needs of each chip.

  Args:
    config: of the decoder.
    mesh: sizes of its axes.
    lengths: of the episodes.
    trained: bytes of what is trained, on each chip.
    optimizer: bytes of the optimiser's state, on each chip.
    has_adapters: whether adapters are trained, not the weights: a gradient of these is not made.

  Returns:
    'flops' and 'traffic_bytes'.
  """
  c, chips = config, math.prod(mesh.values())
  # Into and out of q, k and v; attention; o; gate and up; down.
  numbers = 4 * c.embed_dim + 4 * (c.num_heads + c.num_kv_heads) * c.head_dim + 4 * c.mlp_dim
  token_bytes = c.num_layers * numbers * jnp.dtype(c.dtype).itemsize
  passes = 3 if has_adapters else 4
  activations = passes * float(lengths.rows.sum()) * token_bytes / chips
  # Of a backward pass the half that makes the weights' gradient reads none.
  weights = 3 * weight_bytes(c, mesh)
  return {
    'flops': update_flops(c, lengths.rows, lengths.sampled, has_adapters) / chips,
    'traffic_bytes': activations + weights + 2 * (2 * trained + optimizer),
  }
