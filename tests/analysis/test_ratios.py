"""Shares of those problems that count, against resampling, simulation and simpler shares."""

import math

import numpy as np
import pytest

from score_jax.analysis.statistics import crossed_ratio, crossed_share, ratio

Z = 1.959963984540054  # 97.5% point of the normal distribution


def ratio_draw(rng, num_seeds, num_problems, seed_sd, p=0.2):
  """Right first answers, of which a share `p` is spoilt on average over seeds and problems.

  Problems differ in how often a first answer is right, and a seed moves how many are and, by
  `seed_sd`, how many of these are spoilt: numerator and denominator vary with both.
  """
  shift = rng.normal(0, 1, (num_seeds, 1))
  right = rng.random((num_seeds, num_problems)) < rng.uniform(0.1, 0.9, num_problems) + 0.1 * shift
  spoilt = rng.random((num_seeds, num_problems)) < p + seed_sd * shift
  return np.where(right, spoilt, np.nan)


@pytest.mark.parametrize(
  ('num_seeds', 'num_problems', 'seed_sd'), [(1, 400, 0.0), (30, 100, 0.0), (30, 100, 0.06)]
)
def test_a_crossed_ratio_has_the_bootstraps_interval(num_seeds, num_problems, seed_sd):
  """Of seeds and problems drawn anew, each with its numerator and its denominator.

  To which come half a problem gained and half a problem lost, of as many as count with one seed.
  """
  rng = np.random.default_rng(1)
  got, want = [], []
  for _ in range(20):
    x = ratio_draw(rng, num_seeds, num_problems, seed_sd)
    got.append(crossed_ratio(x))
    seeds = rng.integers(0, num_seeds, (300, num_seeds, 1))
    problems = rng.integers(0, num_problems, (300, 1, num_problems))
    spread = np.nanmean(x[seeds, problems], axis=(1, 2)).std()
    want.append(math.hypot(spread, num_seeds / np.isfinite(x).sum()))
    assert got[-1]['mean'] == pytest.approx(np.nanmean(x))
    assert got[-1]['denominator'] == np.isfinite(x).sum()
  # The resampling counts once more what neither seed nor problem explains.
  half = [(m['high'] - m['low']) / 2 for m in got]
  assert np.mean(half) == pytest.approx(Z * np.mean(want), rel=0.08)


@pytest.mark.parametrize(
  ('num_seeds', 'num_problems', 'seed_sd', 'least', 'most'),
  [(1, 400, 0.0, 0.93, 0.97), (3, 200, 0.0, 0.95, 0.999), (5, 400, 0.04, 0.92, 0.98)],
)
def test_a_crossed_ratio_covers_the_truth(num_seeds, num_problems, seed_sd, least, most):
  rng = np.random.default_rng(0)
  # A seed with more right answers spoils more of them: the truth is not 0.2, and is seen in many.
  truth = np.nanmean(ratio_draw(rng, 4000, 400, seed_sd))
  draws = (ratio_draw(rng, num_seeds, num_problems, seed_sd) for _ in range(500))
  found = [crossed_ratio(x_SN) for x_SN in draws]
  assert least <= np.mean([m['low'] <= truth <= m['high'] for m in found]) <= most


def test_a_crossed_ratio_reduces_to_simpler_ones():
  rng = np.random.default_rng(0)
  x_SN = (rng.random((3, 50)) < 0.3).astype(float)
  assert crossed_ratio(x_SN) == pytest.approx(crossed_share(x_SN) | {'denominator': 150})
  # One seed: those that do not count might as well not be there.
  some = np.where(rng.random((1, 50)) < 0.5, x_SN[:1], math.nan)
  alone = crossed_share(some[:, ~np.isnan(some[0])])
  assert {k: v for k, v in crossed_ratio(some).items() if k in alone} == pytest.approx(alone)
  for count, total in ((0, 60), (30, 300), (180, 300)):
    x = [1] * count + [0] * (total - count) + [math.nan] * 40
    one, wilson = crossed_ratio([x]), ratio(x)
    assert one == pytest.approx(wilson, abs=3 / total)
  nothing = {'mean': None, 'low': None, 'high': None, 'denominator': 0}
  assert crossed_ratio(np.full((2, 3), math.nan)) == ratio([math.nan]) == nothing
  # A seed without any is no seed with a share of 0.
  assert crossed_ratio([[math.nan, math.nan], [1, math.nan]])['mean'] == 1
  with pytest.raises(ValueError, match='none below 0; got -1'):
    crossed_ratio([[math.nan, -1]])
