"""Votes, against values by hand and enumeration."""

import itertools
import math

import numpy as np
import pytest

from score_jax.analysis.statistics import crossed_interval
from score_jax.analysis.voting import majority_vote, scaling, vote_accuracy, vote_values

Z = 1.959963984540054  # 97.5% point of the normal distribution


@pytest.mark.parametrize(
  ('finals', 'winner'),
  [
    (['a'], 'a'),
    (['a', 'b', 'b'], 'b'),
    (['b', 'a', 'a', 'b'], 'b'),  # a tie goes to the first
    (['c', 'a', 'b', 'b', 'a'], 'a'),
    ([None, None, None, 'a'], 'a'),
    ([None, 'b', None, 'a', 'a'], 'a'),
    ([None, None], None),
    (['', '', None], ''),  # an empty answer is an answer
    (['1/2', '0.5', '0.5'], '0.5'),  # by text
  ],
)
def test_majority_vote_by_hand(finals, winner):
  assert majority_vote(finals) == winner


def test_majority_vote_of_nothing():
  with pytest.raises(ValueError, match='at least one'):
    majority_vote([])


def test_majority_vote_is_that_of_counting():
  """The most votes; among those with as many, the one that nothing else stands before."""
  for finals in itertools.product(['a', 'b', 'c', None], repeat=5):
    given = [final for final in finals if final is not None]
    best = max((given.count(final) for final in given), default=0)
    want = next((final for final in given if given.count(final) == best), None)
    assert majority_vote(finals) == want


def enumerated(finals, rewards, budget):
  """The mean over all subsets of one problem's samples."""
  right = []
  for chosen in itertools.combinations(range(len(finals)), budget):
    winner = majority_vote([finals[i] for i in chosen])
    right.append(next(rewards[i] for i in chosen if finals[i] == winner))
  return np.mean(right)


def test_vote_accuracy_is_that_of_all_subsets():
  finals = [list('rrwwxrwx'), ['w', None, None, 'r', 'r', 'w', 'w', 'r'], list('wwwwwwwr')]
  rewards = [[float(final == 'r') for final in row] for row in finals]
  for budget in (1, 2, 3, 5):
    want = [enumerated(f, r, budget) for f, r in zip(finals, rewards, strict=True)]
    got = vote_accuracy(finals, rewards, budget, num_draws=4000, seed=0)
    assert got == pytest.approx(want, abs=0.035)  # four standard errors
    assert 0.05 < max(want) - min(want)
  # All vote: one draw. Three r against three w goes to the first; then r and w are three each.
  assert vote_accuracy(finals, rewards, 8, num_draws=1, seed=0).tolist() == [1, 0, 0]
  once = vote_accuracy(finals, rewards, 3, num_draws=7, seed=1)
  assert once.tolist() == vote_accuracy(finals, rewards, 3, num_draws=7, seed=1).tolist()
  assert once.tolist() != vote_accuracy(finals, rewards, 3, num_draws=7, seed=2).tolist()


def test_a_vote_is_right_as_the_sample_that_it_came_from():
  # The first of the winners counts, and a vote without any final answer is never right.
  assert vote_accuracy([['a', 'b', 'b']], [[1, 0, 1]], 3, 1, 0).tolist() == [0]
  assert vote_accuracy([[None, None]], [[1, 1]], 2, 1, 0).tolist() == [0]


def test_vote_accuracy_says_what_is_missing():
  with pytest.raises(ValueError, match='budget=4, but problem 1 .* has 3 samples'):
    vote_accuracy([['a'] * 4, ['a'] * 3], [[1] * 4, [1] * 3], 4, 1, 0)
  with pytest.raises(ValueError, match='problem 0 .* has 2 final answers, but 1 rewards'):
    vote_accuracy([['a', 'b']], [[1]], 1, 1, 0)
  with pytest.raises(ValueError, match='budget=0'):
    vote_accuracy([['a']], [[1]], 0, 1, 0)


def vote(parallel, first, second):
  """A record of votes.jsonl in which 'r' is the right answer."""

  def reward(finals):
    return [float(final == 'r') for final in finals]

  return {
    'id': 0,
    'level': '1',
    'parallel': {'finals': parallel, 'rewards': reward(parallel)},
    'sequential': {
      'first_finals': first,
      'first_rewards': reward(first),
      'finals': second,
      'rewards': reward(second),
    },
  }


VOTES = [
  vote(list('rwwr'), list('ww'), list('rr')),
  vote(list('wrrx'), list('rr'), list('wr')),
  vote(['w', None, 'w', 'r'], list('rr'), [None, 'w']),
]


def test_scaling_is_that_of_all_subsets():
  got = scaling(VOTES, budgets=(2, 4), num_draws=4000)
  assert list(got) == [2, 4]
  for budget, intervals in got.items():
    parallel = [enumerated(*v['parallel'].values(), budget) for v in VOTES]
    second = [(v['sequential']['finals'], v['sequential']['rewards']) for v in VOTES]
    sequential = [enumerated(*pair, budget // 2) for pair in second]
    means = {name: interval['mean'] for name, interval in intervals.items()}
    assert means == pytest.approx(
      {
        'parallel': np.mean(parallel),
        'sequential': np.mean(sequential),
        'difference': np.mean(sequential) - np.mean(parallel),
      },
      abs=0.02,
    )
  # By hand, with all samples: parallel r (a tie), r, w; sequential r, w (a tie), w.
  assert {name: x['mean'] for name, x in got[4].items()} == pytest.approx(
    {'parallel': 2 / 3, 'sequential': 1 / 3, 'difference': -1 / 3}
  )


def test_scaling_pairs_the_problems():
  """Both ways are right on the same half of the problems: no difference on any of them."""
  right, wrong = vote(['r'] * 32, ['r'] * 16, ['r'] * 16), vote(['w'] * 32, ['w'] * 16, ['w'] * 16)
  got = scaling([right, wrong] * 50)
  assert list(got) == [2, 4, 8, 16, 32]
  for intervals in got.values():
    assert intervals['parallel'] == intervals['sequential']
    half = Z * math.sqrt((100 / 4 + 1) / 100**2)
    assert intervals['parallel'] == pytest.approx(
      {'mean': 0.5, 'low': 0.5 - half, 'high': 0.5 + half}, abs=1e-6
    )
    assert intervals['difference'] == pytest.approx(
      {'mean': 0, 'low': -Z / 100, 'high': Z / 100}, abs=1e-6
    )


def test_vote_values_stack_over_seeds():
  values = [vote_values(VOTES, budgets=(2,), seed=seed)[2] for seed in range(2)]
  x_SN = np.stack([v['sequential'] - v['parallel'] for v in values])
  assert x_SN.shape == (2, 3) and crossed_interval(x_SN)['mean'] == pytest.approx(x_SN.mean())


def test_scaling_says_what_is_wrong():
  with pytest.raises(ValueError, match='budget=3 is odd'):
    scaling(VOTES, budgets=(3,))
  with pytest.raises(ValueError, match='budget=8, but problem 0 .* has 4 samples'):
    scaling(VOTES, budgets=(8,))
