"""How a rollout's cache is cut and shared changes nothing that is sampled."""

import jax
import numpy as np
import pytest

from score_jax.model.decoder import Decoder, DecoderConfig, abstract_params
from score_jax.rollout import generation
from score_jax.rollout.keys import episode_keys
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.multi_turn import rollout

G = 3
CONFIG = DecoderConfig(
  vocab_size=11,
  num_layers=2,
  embed_dim=16,
  mlp_dim=32,
  num_heads=4,
  num_kv_heads=2,
  head_dim=4,
  window=6,
  window_pattern=(True, False),
)
SPEC = RolloutSpec(
  prompt_tokens=5, turn_tokens=(5, 7), followup_ids=((9, 3, 10),), end_of_turn_ids=(1, 2)
)
# Four problems, with holes at the left, in the middle and at the right.
PROMPT = np.array([[4, 7, 3, 8, 5], [0, 6, 9, 9, 4], [7, 0, 0, 5, 0], [0, 0, 0, 0, 10]], np.int32)


@pytest.fixture(scope='module')
def params():
  """Random parameters, noisy enough that every context has its own distribution."""
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda x: rng.normal(0.0, 0.4, x.shape).astype(np.float32), abstract_params(CONFIG)[0]
  )


def sample(params, **how):
  problem, sample = np.repeat(np.arange(4), G), np.tile(np.arange(G), 4)
  keys, prompt = episode_keys(0, 5, problem, sample), PROMPT[problem]
  return jax.device_get(
    rollout(Decoder(CONFIG), SPEC, params, prompt, prompt > 0, keys, 1.0, **how)
  )


@pytest.fixture(scope='module')
def whole(params):
  """Each turn in one block, each row with its own prompt."""
  e = sample(params)
  assert e.is_truncated.any(axis=0).all() and not e.is_truncated.all(axis=0).any()
  return e


@pytest.fixture(params=[5, 2], ids=['one block', 'blocks of 2'])
def block(request, monkeypatch):
  monkeypatch.setattr(generation, '_MIN_BLOCK', request.param)
  jax.clear_caches()  # what is compiled does not know of the change
  yield request.param
  jax.clear_caches()


@pytest.mark.parametrize('samples', [1, G])
def test_blocks_and_shared_prompts_change_nothing(params, whole, block, samples):
  cut = sample(params, samples_per_prompt=samples)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), cut, whole)
  forced = {0: (whole.tokens[:, 5:10], whole.is_token[:, 5:10])}
  again = sample(params, samples_per_prompt=samples, forced=forced)
  np.testing.assert_array_equal(again.tokens, whole.tokens)
  np.testing.assert_array_equal(again.positions, whole.positions)


def test_a_block_that_is_written_late_is_seen(params, whole, monkeypatch, block):
  """The check above sees a token whose keys and values lie one slot too far."""
  write = generation.cache.write
  monkeypatch.setattr(
    generation.cache, 'write', lambda piece, new, slot: write(piece, new, slot + 1)
  )
  late = sample(params)
  assert np.abs(late.sampled_logp - whole.sampled_logp).max() > 1e-2
