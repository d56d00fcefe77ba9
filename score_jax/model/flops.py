"""How many floating-point operations the mathematics needs, by the decoder's sizes.

Counted are the products with weights, 2 operations for each weight and token (2N), and those of
attention, 4 for each head dimension and pair of a token with one that it sees. Norms, rotations,
softmax and the elementwise rest are left out, about a hundredth at the sizes of real models; so is
all that a program does and the mathematics does not ask for: padding, layers computed anew in the
backward pass, logits of tokens that nobody scores, prompts prefilled once more for each sample.
"""

from collections.abc import Sequence

import jax
import numpy as np

from score_jax.model.decoder_config import DecoderConfig

# [FLOP/s] of one jax device in bfloat16, without sparsity, as the makers' data sheets say. A kind
# of device is found by how its name begins; of two that fit, the first counts.
PEAK_FLOPS = {
  'TPU v4 lite': 138e12,
  'TPU v4': 275e12,
  'TPU v5 lite': 197e12,
  'TPU v5e': 197e12,
  'TPU v5': 459e12,
  'TPU v6 lite': 918e12,
  'TPU v6e': 918e12,
  'NVIDIA A100': 312e12,
  'NVIDIA H100 PCIe': 756e12,
  'NVIDIA H100 NVL': 835e12,
  'NVIDIA H100': 989e12,
  'NVIDIA H200 NVL': 835e12,
  'NVIDIA H200': 989e12,
}


def peak_flops(device_kind: str) -> float | None:
  """Looks up what a device can do at most.

  Args:
    device_kind: as `jax.Device.device_kind` says.

  Returns:
    FLOP/s in bfloat16, or None where the table has no such device.

  Example:
    >>> peak_flops('TPU v5p'), peak_flops('TPU v5 lite'), peak_flops('cpu')
    (459000000000000.0, 197000000000000.0, None)
  """
  return next((peak for name, peak in PEAK_FLOPS.items() if device_kind.startswith(name)), None)


def matmul_weights(config: DecoderConfig) -> tuple[int, int]:
  """Counts the weights that a token is multiplied with; biases and norms' scales are none.

  Args:
    config: the sizes.

  Returns:
    Those of all layers, and those of the head.

  Example:
    >>> matmul_weights(DecoderConfig(11, 3, 8, 16, num_heads=4, num_kv_heads=2, head_dim=2))
    (1728, 88)
  """
  c = config
  attention = 2 * (c.num_heads + c.num_kv_heads) * c.head_dim  # q and o, k and v
  layer = c.embed_dim * (attention + 3 * c.mlp_dim)  # gate, up and down
  return c.num_layers * layer, c.embed_dim * c.vocab_size


def seen_pairs(config: DecoderConfig, lengths_B: Sequence[int] | np.ndarray) -> float:
  """Counts the pairs of a token with one that it sees, itself included, over all layers.

  In a row of n tokens that is n (n + 1) / 2 for a layer that sees everything before it; where a
  token sees at most w, the sum of min(p + 1, w) over its positions p.

  Args:
    config: the number of layers, and which of them have a window.
    lengths_B: tokens of each row.

  Returns:
    The number of pairs.

  Example:
    >>> sizes = dict(num_layers=2, embed_dim=8, mlp_dim=16, num_heads=1, num_kv_heads=1)
    >>> c = DecoderConfig(11, **sizes, head_dim=8, window=2, window_pattern=(True, False))
    >>> seen_pairs(c, [3])  # 1 + 2 + 2 in the first layer, 1 + 2 + 3 in the second
    11.0
  """
  n_B = np.asarray(lengths_B, np.float64)
  near_B = np.minimum(n_B, config.window)
  far = (n_B * (n_B + 1) / 2).sum()
  near = (near_B * (near_B + 1) / 2 + (n_B - near_B) * config.window).sum()
  return float(sum(near if windowed else far for windowed in config.is_windowed))


def forward_flops(config: DecoderConfig, tokens: float, scored: float, pairs: float) -> float:
  """Operations of one forward pass.

      2 (weights of the layers * tokens + weights of the head * scored) + 4 N H pairs

  Args:
    config: the sizes.
    tokens: tokens that go through the layers.
    scored: tokens whose logits are made.
    pairs: from `seen_pairs`.

  Returns:
    FLOPs.

  Source: arXiv:2204.02311, appendix B. Differs: attention counts the pairs that are seen, not all.
  """
  layers, head = matmul_weights(config)
  return 2 * (layers * tokens + head * scored) + _attention(config, pairs)


def _attention(config: DecoderConfig, pairs: float) -> float:
  return 4 * config.num_heads * config.head_dim * pairs


def gradient_flops(
  config: DecoderConfig, tokens: float, scored: float, pairs: float, has_adapters: bool = False
) -> float:
  """Operations of a forward pass and its gradient: three times those of the forward pass (6N).

  Where adapters are trained and the weights are not, no product makes the weights' gradient: 4N,
  and 12 for a pair and head dimension as before. The adapters' own products are left out.

  Args:
    config: the sizes.
    tokens: tokens that go through the layers.
    scored: tokens whose logits are made.
    pairs: from `seen_pairs`.
    has_adapters: whether adapters are trained, not the weights.

  Returns:
    FLOPs.
  """
  forward, attention = forward_flops(config, tokens, scored, pairs), _attention(config, pairs)
  return 2 * forward + attention if has_adapters else 3 * forward


def update_flops(
  config: DecoderConfig,
  lengths_B: Sequence[int] | np.ndarray,
  scored: float,
  has_adapters: bool = False,
) -> float:
  """Operations of one update: the policy's gradient (6N) and the reference's forward pass (2N).

  Args:
    config: the sizes.
    lengths_B: real tokens of each row.
    scored: sampled tokens of all rows, whose logits are needed.
    has_adapters: whether adapters are trained, not the weights.

  Returns:
    FLOPs.
  """
  work = (float(np.sum(lengths_B)), scored, seen_pairs(config, lengths_B))
  return gradient_flops(config, *work, has_adapters) + forward_flops(config, *work)


def sampling_flops(
  config: DecoderConfig,
  lengths_B: Sequence[int] | np.ndarray,
  prompts_B: Sequence[int] | np.ndarray,
  scored: float,
  samples_per_problem: int = 1,
) -> float:
  """Operations of a rollout: each token goes through the layers once (2N), prompts of G rows once.

  Args:
    config: the sizes.
    lengths_B: real tokens of each row, prompt and instructions included.
    prompts_B: tokens of each row's prompt, the same in the G rows of a problem.
    scored: sampled tokens of all rows.
    samples_per_problem: G.

  Returns:
    FLOPs.
  """
  rows = forward_flops(config, float(np.sum(lengths_B)), scored, seen_pairs(config, lengths_B))
  prompts = forward_flops(config, float(np.sum(prompts_B)), 0, seen_pairs(config, prompts_B))
  return rows - prompts * (1 - 1 / samples_per_problem)


def peak_of_all_devices() -> float | None:
  """FLOP/s in bfloat16 of all devices of all processes; None where the table lacks one of them."""
  peaks = [peak_flops(device.device_kind) for device in jax.devices()]
  return None if None in peaks else sum(peaks)
