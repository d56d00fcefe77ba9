"""How a rollout's cache is cut and shared changes nothing that is sampled."""

import dataclasses

import jax
import numpy as np
import pytest
from small_models import random_params, tiny_decoder

from score_jax.model.decoder import Decoder
from score_jax.rollout import generation
from score_jax.rollout.keys import episode_keys
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.multi_turn import rollout

G = 3
CONFIG = tiny_decoder(
  num_layers=2, embed_dim=16, mlp_dim=32, head_dim=4, window=6, window_pattern=(True, False)
)
PARAMS = random_params(CONFIG, seed=1)
SPEC = RolloutSpec(
  prompt_tokens=5, turn_tokens=(5, 7), followup_ids=((9, 3, 10),), end_of_turn_ids=(1, 2)
)
# Four problems, with holes at the left, in the middle and at the right.
PROMPT = np.array([[4, 7, 3, 8, 5], [0, 6, 9, 9, 4], [7, 0, 0, 5, 0], [0, 0, 0, 0, 10]], np.int32)


def sample(spec=SPEC, **how):
  problem, sample = np.repeat(np.arange(4), G), np.tile(np.arange(G), 4)
  keys, prompt = episode_keys(0, 5, problem, sample), PROMPT[problem]
  return jax.device_get(
    rollout(Decoder(CONFIG), spec, PARAMS, prompt, prompt > 0, keys, 1.0, **how)
  )


def renamed(number, spec=SPEC):
  """An equal spec by another name: what is compiled does not know of a change to the module."""
  return dataclasses.replace(spec, end_of_turn_ids=(1,) + number * (2,))


@pytest.fixture(scope='module')
def whole():
  """Each turn in one block, each row with its own prompt."""
  e = sample()
  assert e.is_truncated.any(axis=0).all() and not e.is_truncated.all(axis=0).any()
  return e


# Turns of 5 and 5 + 2 tokens, or of 3 + 2 and 3 + 3 + 1; forced first answers on the way.
@pytest.mark.parametrize(
  ('block', 'samples'),
  [
    (5, G),
    (3, 1),
    pytest.param(5, 1, marks=pytest.mark.slow),
    pytest.param(3, G, marks=pytest.mark.slow),
  ],
)
def test_blocks_and_shared_prompts_change_nothing(whole, monkeypatch, block, samples):
  monkeypatch.setattr(generation, '_MIN_BLOCK', block)
  blocks = [generation._blocks(budget) for budget in SPEC.turn_tokens]
  assert blocks == {5: [[5], [5, 2]], 3: [[3, 2], [3, 3, 1]]}[block]
  spec = renamed(block)
  cut = sample(spec, samples_per_prompt=samples)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), cut, whole)
  forced = {0: (whole.tokens[:, 5:10], whole.is_token[:, 5:10])}
  again = sample(spec, samples_per_prompt=samples, forced=forced)
  np.testing.assert_array_equal(again.tokens, whole.tokens)
  np.testing.assert_array_equal(again.positions, whole.positions)


@pytest.mark.parametrize('block', [5, 3])
def test_a_block_that_is_written_late_is_seen(whole, monkeypatch, block):
  """The checks above see a token whose keys and values lie one slot too far."""
  write = generation.cache.write
  monkeypatch.setattr(
    generation.cache, 'write', lambda piece, new, slot: write(piece, new, slot + 1)
  )
  monkeypatch.setattr(generation, '_MIN_BLOCK', block)
  late = sample(renamed(block, SPEC.first_turns(1)))
  slots = slice(0, SPEC.first_slot(1))
  assert np.abs(late.sampled_logp[:, slots] - whole.sampled_logp[:, slots]).max() > 1e-2
