"""The numbers of an evaluation and their intervals, against formulas, loops and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from score_jax.analysis.statistics import (
  RATIOS,
  crossed_interval,
  crossed_share,
  mcnemar,
  mean_interval,
  paired_difference,
  per_problem,
  share,
  summarise,
)

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
  assert mean_interval([0, 0, 0, 1], 0, 1)['low'] == 0  # 1/4 - 1.96 sqrt(1/4 / 4) by the formula
  assert mean_interval([1, 1, 1, 0], 0, 1)['high'] == 1


def test_no_share_is_negative():
  x_SN = np.eye(3)[:, :2] / 10
  assert crossed_interval(x_SN)['low'] < 0
  assert crossed_share(x_SN) == crossed_interval(x_SN) | {'low': 0}
  with pytest.raises(ValueError, match='none below 0; got -1'):
    crossed_share([[0, -1]])
  answer = {'finals': ['1', '2'], 'answers': ['1', '2'], 'tokens': [0, 0]}
  first = {'rewards': [0, 1], 'truncated': [True, True], **answer}
  others = first | {'rewards': [0, 0], 'answers': ['', ''], 'truncated': [False, False]}
  for name, found in summarise([first, others, others]).items():
    if name == 'e_minus':  # of no right answer
      assert found == {'mean': None, 'low': None, 'high': None, 'denominator': 0}
    elif not name.startswith('delta'):
      assert 0 <= found['low'] <= found['mean'] <= found['high'], name


@pytest.mark.parametrize(
  ('gained', 'lost', 'p'),
  [
    (5, 1, 0.21875),  # 2 (1 + 6) / 64
    (1, 5, 0.21875),
    (0, 0, 1),
    (4, 4, 1),
    (1, 0, 1),
    (6, 0, 2 / 64),
    (10, 2, 2 * (1 + 12 + 66) / 4096),
    (29, 7, 2 * sum(math.comb(36, k) for k in range(8)) / 2**36),
  ],
)
def test_mcnemar_by_hand(gained, lost, p):
  assert mcnemar(gained, lost) == pytest.approx(p, rel=1e-9)


def test_crossed_interval_by_hand():
  # Two seeds, 300 problems. Seed means 1/12 and 1/6: variance 1/288, over S = 2. Problem means 0,
  # 1/8 and 1/4, a hundred of each, about 1/8: squares 200 / 64 = 25/8; and 1, over N^2.
  got = crossed_interval(np.repeat([[0, 0, 0.25], [0, 0.25, 0.25]], 100, axis=1))
  by_seed, by_problem = 1 / 576, (25 / 8 + 1) / 300**2
  freedom = (by_seed + by_problem) ** 2 / (by_seed**2 / 1 + by_problem**2 / 299)
  assert 1 < freedom < 2  # nearly all is seeds, of which there are two
  half = stats.t.ppf(0.975, freedom) * math.sqrt(by_seed + by_problem)
  assert got == pytest.approx({'mean': 1 / 8, 'low': 1 / 8 - half, 'high': 1 / 8 + half})
  # Few numbers know nothing: the ends stay where a difference can be.
  assert crossed_interval([[0, 0, 1], [0, 1, 1]]) == {'mean': 0.5, 'low': -1, 'high': 1}


def crossed_draw(rng, num_seeds, num_problems, seed_sd):
  """Differences -1, 0, 1 whose mean over all seeds and problems is 0.1.

  A problem is gained with a chance that is uniform in [0.05, 0.25], and lost with 0.05; a seed
  moves both, and so the mean, by a normal number of standard deviation `seed_sd`.
  """
  shift = rng.normal(0, seed_sd, (num_seeds, 1)) / 2
  gain = rng.uniform(0.05, 0.25, (1, num_problems)) + shift
  u = rng.random((num_seeds, num_problems))
  return (u < gain).astype(float) - (u > 0.95 + shift)


@pytest.mark.parametrize(
  ('num_seeds', 'num_problems', 'seed_sd', 'least', 'most'),
  [
    (1, 200, 0.0, 0.93, 0.97),
    (3, 100, 0.0, 0.95, 0.999),  # the remainder alone, which counts twice: rather wide
    (3, 400, 0.02, 0.94, 0.98),  # seeds and problems matter alike
    (5, 400, 0.03, 0.94, 0.98),
    (3, 400, 0.05, 0.9, 0.95),  # three seeds, and little else matters: rather narrow
  ],
)
def test_crossed_interval_covers_the_truth(num_seeds, num_problems, seed_sd, least, most):
  rng = np.random.default_rng(0)
  x = [crossed_draw(rng, num_seeds, num_problems, seed_sd) for _ in range(1000)]
  intervals = [crossed_interval(x_SN) for x_SN in x]
  assert least <= np.mean([i['low'] <= 0.1 <= i['high'] for i in intervals]) <= most
  # As if the S N numbers were independent: too narrow where seeds matter.
  naive = [Z * x_SN.std() / math.sqrt(x_SN.size) for x_SN in x]
  covered = np.mean([abs(x_SN.mean() - 0.1) <= half for x_SN, half in zip(x, naive, strict=True)])
  assert covered < 0.9 or seed_sd == 0


@pytest.mark.parametrize(
  ('gained', 'lost', 'total'), [(0, 0, 50), (10, 0, 100), (29, 7, 500), (40, 40, 200)]
)
def test_one_seeds_crossed_interval_is_about_the_paired_one(gained, lost, total):
  x = [1] * gained + [-1] * lost + [0] * (total - gained - lost)
  one, paired = crossed_interval([x]), paired_difference(gained, lost, total)
  assert one['mean'] == pytest.approx(paired['mean'])
  # Agresti and Min shrink the mean by two problems of no difference; that is all.
  assert one['low'] == pytest.approx(paired['low'], abs=2.5 / total)
  assert one['high'] == pytest.approx(paired['high'], abs=2.5 / total)


@pytest.mark.parametrize('num_seeds', [1, 2, 3])
@pytest.mark.parametrize('num_problems', [1, 2, 50])
@pytest.mark.parametrize('value', [-1, 0, 0.5, 1])
def test_crossed_interval_of_equal_numbers_is_finite_and_no_point(num_seeds, num_problems, value):
  got = crossed_interval(np.full((num_seeds, num_problems), value))
  assert got['mean'] == value and -1 <= got['low'] <= value <= got['high'] <= 1
  assert got['high'] - got['low'] >= min(1, 1.9 / num_problems)


def test_crossed_interval_says_what_it_takes():
  with pytest.raises(ValueError, match=r'\[seeds, problems\].*\(3,\)'):
    crossed_interval([0, 1, 0])
  with pytest.raises(ValueError, match=r'\(2, 0\)'):
    crossed_interval(np.zeros((2, 0)))
  with pytest.raises(ValueError, match='got 3.0 to 37.0'):
    crossed_interval([[3, 37]])
  with pytest.raises(ValueError, match='nan'):
    crossed_interval([[0, math.nan]])


def record(rewards, finals, tokens, truncated):
  # The final answers are the whole texts here.
  return {
    'rewards': rewards,
    'answers': finals,
    'finals': finals,
    'tokens': tokens,
    'truncated': truncated,
  }


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
      'e_minus': 1 / 2,  # of the first and the fourth, the fourth
      'e_plus': 1 / 3,  # of the other three, the last
      'i2c_truncated': 2 / 2,
      'edit_ratio': 4 / 10,  # one of two characters, but nothing in the first
      'length_t1': 5,
      'length_t2': 5,
      'truncated_t1': 2 / 5,
      'truncated_t2': 1 / 5,
    }
  )
  assert got['delta'] == paired_difference(2, 1, 5)
  assert got['i2c'] == share(2, 5) and got['changed'] == share(4, 5)
  assert got['length_t2'] == {'mean': 5, 'low': 5, 'high': 5}
  assert got['edit_ratio'] == mean_interval([0, 0.5, 0.5, 0.5, 0.5])
  counts = {name: m.pop('denominator') for name, m in got.items() if 'denominator' in m}
  assert counts == {'e_minus': 2, 'e_plus': 3, 'i2c_truncated': 2}
  assert got['e_minus'] == share(1, 2) and got['e_plus'] == share(1, 3)
  assert all(set(interval) == {'mean', 'low', 'high'} for interval in got.values())


def test_summarise_of_other_numbers_of_turns():
  # A turn before the last two changes nothing but its own accuracy.
  three = [
    record([0, *r['rewards']], ['x', *r['finals']], [9, *r['tokens']], [True, *r['truncated']])
    for r in RECORDS
  ]
  two, got = summarise(RECORDS), summarise(three)
  assert [got[f'acc_t{k}']['mean'] for k in (1, 2, 3)] == pytest.approx([0, 2 / 5, 3 / 5])
  assert all(got[name] == two[name] for name in ('delta', 'i2c', 'c2i', 'changed', 'edit_ratio'))
  assert all(got[name] == two[name] for name in RATIOS)
  # Nobody is right at turn 1, three are at turn 3; all leave 'x', all but the first change again.
  assert got['delta_t1t3'] == paired_difference(3, 0, 5)
  assert (got['changed_t12'], got['changed_t23']) == (share(5, 5), share(4, 5))
  assert set(got) - set(two) == {
    *('acc_t3', 'length_t3', 'truncated_t3', 'delta_t1t3', 'changed_t12', 'changed_t23')
  }
  one = summarise([record([1], ['a'], [3], [False])] * 3)
  assert set(one) == {'acc_t1', 'length_t1', 'truncated_t1'}
  with pytest.raises(ValueError, match='no problems'):
    summarise([])


def test_changed_is_of_final_answers_and_edits_are_of_texts():
  words = {'answers': ['7', 'so 7', '7']}
  same = record([1, 1, 1], ['7', '7', '7'], [1, 2, 1], [False] * 3) | words
  other = record([0, 1, 0], ['6', '7', '5'], [1, 1, 1], [False] * 3) | {'answers': ['7', '7', '7']}
  assert per_problem([same, other])['changed'].tolist() == [0, 1]
  found = summarise([same, other])
  assert [found[f'changed_t{jk}']['mean'] for jk in (12, 23)] == pytest.approx([0.5, 0.5])
  assert found['edit_ratio']['mean'] == pytest.approx(3 / 5 / 2)  # three of five characters


def test_per_problem_by_hand():
  got, no = per_problem(RECORDS), pytest.approx(math.nan, nan_ok=True)
  assert {name: x.tolist() for name, x in got.items()} == {
    'acc_t1': [1, 0, 0, 1, 0],
    'acc_t2': [1, 1, 1, 0, 0],
    'delta': [0, 1, 1, -1, 0],
    'i2c': [0, 1, 1, 0, 0],
    'c2i': [0, 0, 0, 1, 0],
    'changed': [0, 1, 1, 1, 1],
    'e_minus': [0, no, no, 1, no],
    'e_plus': [no, 0, 0, no, 1],
    'i2c_truncated': [no, 1, 1, no, no],
  }
  assert all(x.dtype == np.float64 for x in got.values())
  metrics = summarise(RECORDS)
  assert all(np.nanmean(x) == pytest.approx(metrics[name]['mean']) for name, x in got.items())
  none = per_problem([record([0, 0], [None, None], [1, 1], [False, False])])
  assert none['changed'].tolist() == [0]  # still no answer
  assert set(per_problem([record([1], ['a'], [3], [False])])) == {'acc_t1'}
  with pytest.raises(ValueError, match='no problems'):
    per_problem([])
