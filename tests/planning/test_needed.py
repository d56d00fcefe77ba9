"""Bytes and FLOPs that the mathematics needs, against loops over tokens."""

import numpy as np
import pytest
from small_models import tiny_decoder

from score_jax.planning.lengths import Lengths
from score_jax.planning.needed import decode_needs, update_needs

CONFIG = tiny_decoder(window=5, window_pattern=(True, False))
LENGTHS = Lengths(
  np.array([4, 4, 6, 6]), np.array([[3, 2], [1, 4], [2, 2], [5, 1]]), inputs=(2,), samples=2
)
LAYER = 2 * 12 * (4 + 2) * 8 + 3 * 12 * 16  # q, o, k and v; gate, up and down
ONE = {'data': 1, 'fsdp': 1, 'tensor': 1}


def seen_by_loops(config, lengths):
  """Keys that each sampled token reads, over all layers, and those that a group reads once."""
  seen, read = 0, set()
  for row, (prompt, answers) in enumerate(zip(lengths.prompts, lengths.answers, strict=True)):
    place = prompt
    for turn, n in enumerate(answers):
      for i in range(n):
        for layer, windowed in enumerate(config.is_windowed):
          first = max(0, place - config.window + 1) if windowed else 0
          for key in range(first, place + 1):
            group = row // lengths.samples if key < prompt else None
            read.add((layer, turn, i, key, group, row if group is None else None))
            seen += 1
        place += 1
      place += lengths.inputs[0]
  return seen, len(read)


@pytest.mark.parametrize('samples', [1, 2])
def test_what_decoding_needs(samples):
  lengths = Lengths(LENGTHS.prompts, LENGTHS.answers, LENGTHS.inputs, samples)
  seen, read = seen_by_loops(CONFIG, lengths)
  assert (read < seen) == (samples == 2)
  needs = decode_needs(CONFIG, ONE, lengths, slots=2)
  weights = 3 * LAYER + 12 * 11
  assert needs['flops'] == 20 * 2 * weights + 4 * 4 * 8 * seen
  # 20 tokens through 2 slots are 10 steps. Keys and values of 2 heads of 8, in float32.
  assert needs['traffic_bytes'] == 10 * 4 * weights + (read + 20 * 3) * 2 * 2 * 8 * 4
  # With a slot for each row, the longest row's 6.
  steps = decode_needs(CONFIG, ONE, lengths, slots=4)['traffic_bytes'] - needs['traffic_bytes']
  assert steps == (6 - 10) * 4 * weights


def test_each_chip_reads_its_part():
  """Rows are split over fsdp, weights gathered; heads and weights are split over tensor."""
  one = decode_needs(CONFIG, ONE, LENGTHS, slots=4)
  many = decode_needs(CONFIG, {'data': 1, 'fsdp': 2, 'tensor': 2}, LENGTHS, slots=4)
  weights = 6 * 4 * (3 * LAYER + 12 * 11)
  assert many['flops'] == one['flops'] / 4
  assert many['traffic_bytes'] == weights / 2 + (one['traffic_bytes'] - weights) / 4


@pytest.mark.parametrize('has_adapters', [False, True])
def test_what_an_update_needs(has_adapters):
  """What goes into and comes out of the products of each layer, listed."""
  D, F, heads, kv = 12, 16, 4 * 8, 2 * 8
  products = [
    (D, heads + 2 * kv),
    (heads + 2 * kv, heads),  # attention
    (heads, D),
    (D, 2 * F),
    (2 * F, D),
  ]
  tokens = int(LENGTHS.prompts.sum() + LENGTHS.answers.sum() + 4 * 2)
  once = tokens * 3 * sum(sum(x) for x in products) * 4
  needs = update_needs(CONFIG, ONE, LENGTHS, 1000, 2000, has_adapters)
  weights = 4 * (3 * LAYER + D * 11)
  # Gradient and weights are written and read, as are both moments.
  assert needs['traffic_bytes'] == (3 if has_adapters else 4) * once + 3 * weights + 8 * 1000
  assert needs['flops'] > 2 * 3 * LAYER * tokens * 4 * (0.75 if has_adapters else 1)
