"""Many problems, part by part."""

import dataclasses

import jax
import numpy as np
import pytest
from small_models import Digits, counting_model

from score_jax.core.sharding import make_mesh
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.sampler import EpisodeRow, Sampler

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
  parts = list(sampler.sample(ROWS, 0))
  found = np.concatenate([episode.tokens for _, episode in parts])
  assert [i for part, _ in parts for i in range(len(ROWS))[part]] == list(range(12))
  return found


@pytest.fixture(scope='module')
def whole(sampler):
  """All rows at once."""
  found = tokens(sampler)
  assert len({tuple(row[4:]) for row in found.tolist()}) > 6
  return found


@pytest.mark.parametrize('batch', [1, 2, 5])
def test_batches_change_nothing(sampler, whole, batch):
  """Four batches make a part; the last one is short."""
  np.testing.assert_array_equal(tokens(dataclasses.replace(sampler, batch=batch)), whole)


@pytest.mark.parametrize('num_rows', [9, 10, 12])
def test_a_short_part_runs_the_programs_of_the_others(sampler, monkeypatch, num_rows):
  """Rows go in parts of four batches at most, none of them far smaller than the others."""
  parts, batches, batch = [], [], 2
  monkeypatch.setattr(Sampler, 'sample_placed', lambda self, placed: parts.append(placed) or placed)
  monkeypatch.setattr(Sampler, 'place', lambda self, rows, step: np.arange(len(rows)))
  sampler = dataclasses.replace(sampler, batch=batch)
  for part, _ in sampler.sample(ROWS[:num_rows], 0):
    batches.append(part.stop - part.start)
  assert sum(map(len, parts)) == sum(batches) == num_rows
  assert max(batches) == batch
  assert min(map(len, parts)) >= num_rows // 2 > batch
