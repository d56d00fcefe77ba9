"""Lengths of episodes: as long as they may be, and as long as MATH's solutions."""

import numpy as np

from score_jax.planning.lengths import full_lengths, quantiles, real_lengths
from score_jax.rollout.layout import RolloutSpec

SPEC = RolloutSpec(512, (1024, 1024), ((0,) * 64,), (0,))


def test_real_answers_are_as_long_as_solutions():
  found = quantiles(198, 151, 10_000)
  assert abs(found.mean() / 198 - 1) < 0.005 and np.median(found) == 151
  assert abs(np.percentile(found, 99) / 836 - 1) < 0.01
  real = real_lengths(SPEC, 64, 8, 40)
  assert real.answers.shape == (512, 2) and real.answers.max() == 1024
  assert abs(real.answers.mean() - 197) < 2 and abs(np.corrcoef(real.answers.T)[0, 1]) < 0.1
  np.testing.assert_array_equal(real.answers, real_lengths(SPEC, 64, 8, 40).answers)
  # A problem's samples have one prompt: the words around it, and the problem.
  prompts = real.prompts.reshape(64, 8)
  assert (prompts == prompts[:, :1]).all() and 40 < prompts.min() < prompts.max() <= 512
  assert abs(prompts.mean() - 115) < 5


def test_lengths_are_cut_at_their_budgets():
  spec = RolloutSpec(50, (20, 300), ((0,) * 9,), (0,))
  real = real_lengths(spec, 8, 4, 40)
  assert real.prompts.max() == 50 and real.answers[:, 0].max() == 20 < real.answers[:, 1].max()
  full = full_lengths(spec, 2, 2)
  assert full.rows.tolist() == [50 + 20 + 1 + 9 + 300] * 4 == [spec.first_slot(2)] * 4
  assert full.sampled == 4 * 320
