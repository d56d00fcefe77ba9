"""The numbers of an evaluation and their intervals, against formulas, loops and simulation."""

import math

import numpy as np
import pytest

from score_jax.procedures.evaluation import mean_interval, paired_difference, share, summarise

Z = 1.959963984540054  # 97.5% point of the normal distribution


@pytest.mark.parametrize(('count', 'total'), [(0, 7), (1, 7), (7, 7), (210, 500), (1, 1024)])
def test_share_is_the_wilson_interval(count, total):
  p = count / total
  centre = (p + Z**2 / (2 * total)) / (1 + Z**2 / total)
  half = Z / (1 + Z**2 / total) * math.sqrt(p * (1 - p) / total + Z**2 / (4 * total**2))
  want = {'mean': p, 'low': centre - half, 'high': centre + half}
  assert share(count, total) == pytest.approx(want, abs=1e-9)
  assert 0 <= share(count, total)['low'] <= p <= share(count, total)['high'] <= 1


@pytest.mark.parametrize(
  ('gained', 'lost', 'total'), [(0, 0, 50), (10, 0, 100), (3, 8, 40), (29, 7, 500), (5, 5, 20)]
)
def test_paired_difference_is_walds_interval_of_a_smoothed_table(gained, lost, total):
  # One number for each problem, and half a problem more in each of the four outcomes, of which
  # two change nothing: the weighted mean and its standard error, summed one by one.
  values = [(1.0, 1.0)] * gained + [(-1.0, 1.0)] * lost + [(0.0, 1.0)] * (total - gained - lost)
  values += [(1.0, 0.5), (-1.0, 0.5), (0.0, 0.5), (0.0, 0.5)]
  n = sum(weight for _, weight in values)
  mean = sum(weight * value for value, weight in values) / n
  variance = sum(weight * (value - mean) ** 2 for value, weight in values) / n
  got = paired_difference(gained, lost, total)
  assert got['mean'] == pytest.approx((gained - lost) / total)
  assert got['low'] == pytest.approx(mean - Z * math.sqrt(variance / n), abs=1e-6)
  assert got['high'] == pytest.approx(mean + Z * math.sqrt(variance / n), abs=1e-6)
  assert got['low'] < got['mean'] < got['high']


@pytest.mark.parametrize(
  ('p_gained', 'p_lost', 'total'), [(0.058, 0.014, 500), (0.05, 0.05, 200), (0.15, 0.05, 100)]
)
def test_paired_difference_covers_the_truth(p_gained, p_lost, total):
  """The first row is the size of the paper's result on MATH500."""
  rng = np.random.default_rng(0)
  draws = rng.multinomial(total, [p_gained, p_lost, 1 - p_gained - p_lost], size=2000)
  intervals = [paired_difference(gained, lost, total) for gained, lost, _ in draws]
  truth = p_gained - p_lost
  covered = np.mean([i['low'] <= truth <= i['high'] for i in intervals])
  assert 0.93 <= covered <= 0.97
  # The two turns as if they were other problems, each with half of the rest right: far too wide.
  right = (1 - p_gained - p_lost) / 2
  p1, p2 = right + p_lost, right + p_gained
  half = Z * math.sqrt((p1 * (1 - p1) + p2 * (1 - p2)) / total)
  assert np.mean(np.abs((draws[:, 0] - draws[:, 1]) / total - truth) <= half) > 0.97


def test_paired_difference_changes_sign_with_its_arguments():
  forth, back = paired_difference(9, 2, 60), paired_difference(2, 9, 60)
  assert (forth['mean'], forth['low'], forth['high']) == pytest.approx(
    (-back['mean'], -back['high'], -back['low'])
  )


def test_mean_interval():
  # Mean 4; deviations -3, -1, 4 square to 26, over n - 1 = 2 is 13; over n = 3, its root.
  half = Z * math.sqrt(13 / 3)
  assert mean_interval([1, 3, 8]) == pytest.approx({'mean': 4, 'low': 4 - half, 'high': 4 + half})
  assert mean_interval([5]) == {'mean': 5, 'low': 5, 'high': 5}


def record(rewards, answers, tokens, truncated):
  return {'rewards': rewards, 'finals': answers, 'tokens': tokens, 'truncated': truncated}


RECORDS = [
  record([1, 1], ['a', 'a'], [3, 5], [False, False]),
  record([0, 1], ['b', 'a'], [4, 5], [True, False]),
  record([0, 1], ['c', 'a'], [5, 5], [True, False]),
  record([1, 0], ['a', 'd'], [6, 5], [False, True]),
  record([0, 0], ['e', 'f'], [7, 5], [False, False]),
]


def test_summarise_by_hand():
  got = summarise(RECORDS)
  assert {name: interval['mean'] for name, interval in got.items()} == pytest.approx(
    {
      'acc_t1': 2 / 5,  # the first and the fourth
      'acc_t2': 3 / 5,  # the first three
      'delta': 1 / 5,
      'i2c': 2 / 5,  # the second and the third
      'c2i': 1 / 5,  # the fourth
      'changed': 4 / 5,  # all but the first: from one wrong answer to another counts
      'length_t1': 5,
      'length_t2': 5,
      'truncated_t1': 2 / 5,
      'truncated_t2': 1 / 5,
    }
  )
  assert got['delta'] == paired_difference(2, 1, 5)
  assert got['i2c'] == share(2, 5) and got['changed'] == share(4, 5)
  assert got['length_t2'] == {'mean': 5, 'low': 5, 'high': 5}
  assert all(set(interval) == {'mean', 'low', 'high'} for interval in got.values())


def test_summarise_of_other_numbers_of_turns():
  # A turn before the last two changes nothing but its own accuracy.
  three = [
    record([0, *r['rewards']], ['x', *r['finals']], [9, *r['tokens']], [True, *r['truncated']])
    for r in RECORDS
  ]
  two, got = summarise(RECORDS), summarise(three)
  assert [got[f'acc_t{k}']['mean'] for k in (1, 2, 3)] == pytest.approx([0, 2 / 5, 3 / 5])
  assert all(got[name] == two[name] for name in ('delta', 'i2c', 'c2i', 'changed'))
  one = summarise([record([1], ['a'], [3], [False])] * 3)
  assert set(one) == {'acc_t1', 'length_t1', 'truncated_t1'}
  with pytest.raises(ValueError, match='no problems'):
    summarise([])
