"""Many problems, batch by batch: prompts that are shared, batches that are filled up."""

import dataclasses

import jax
import numpy as np
import pytest
from small_models import Digits, counting_model

from score_jax.core.sharding import make_mesh
from score_jax.rollout import sampler as sampler_lib
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.sampler import EpisodeRow, Sampler

# Prompts of 3 and 4 tokens take all of the slots, so that batches have one shape.
SPEC = RolloutSpec(prompt_tokens=4, turn_tokens=(4,), followup_ids=(), end_of_turn_ids=(9,))
ROWS = [EpisodeRow([i + 1] * (3 + i % 2), i, g) for i in range(3) for g in range(4)]


@pytest.fixture(scope='module')
def sampler():
  decoder, params = counting_model()
  # Nothing but noise decides what is sampled.
  flat = jax.tree.map(np.zeros_like, params) | {'embedder': params['embedder']}
  mesh = make_mesh((1, 1, 1), jax.devices()[:1])
  return Sampler(decoder, SPEC, flat, Digits(), batch=12, temperature=1.0, seed=0, mesh=mesh)


def tokens(sampler):
  parts = [(part, episode.tokens) for part, episode in sampler.sample(ROWS, 0)]
  assert [part.start for part, _ in parts] == list(range(0, 12, sampler.batch))
  return np.concatenate([x for _, x in parts])


@pytest.fixture(scope='module')
def alone(sampler):
  """Every row with a prompt of its own, all in one batch."""
  found = tokens(sampler)
  assert len({tuple(row[4:]) for row in found.tolist()}) > 6
  return found


@pytest.mark.parametrize(('batch', 'shared'), [(4, 4), (8, 4), (6, 2), (3, 1), (2, 2)])
def test_samples_of_a_problem_share_its_prompt(sampler, alone, monkeypatch, batch, shared):
  """As far as batches cut rows into groups of samples; the last batch is filled up."""
  groups, rollout = [], sampler_lib.rollout

  def watched(*args):
    groups.append(args[-1])
    return rollout(*args)

  monkeypatch.setattr(sampler_lib, 'rollout', watched)
  together = dataclasses.replace(sampler, batch=batch, samples_per_prompt=4)
  np.testing.assert_array_equal(tokens(together), alone)
  assert set(groups) == {shared}
