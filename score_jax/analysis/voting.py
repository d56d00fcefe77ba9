"""Majority votes, and what samples are best spent on: parallel answers or corrections."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from score_jax.analysis.statistics import crossed_interval, crossed_share


def majority_vote(finals: Sequence[str | None]) -> str | None:
  """The final answer that occurs most often.

  Args:
    finals: at least one final answer; None where a sample has none. Two are the same where their
      texts are.

  Returns:
    The winner. A tie goes to the one that occurs first; None wins only where all are None.

  Raises:
    ValueError: if there is nothing to count.

  Example:
    >>> majority_vote([None, '4', '5', None, None, '5', '4'])
    '4'
  """
  if not finals:
    raise ValueError('a majority vote needs at least one final answer; got none')
  # A Counter keeps the order of first occurrence, and max takes the first of several.
  counts = Counter(final for final in finals if final is not None)
  return max(counts, key=counts.__getitem__) if counts else None


def vote_accuracy(
  finals_PN: Sequence[Sequence[str | None]],
  rewards_PN: Sequence[Sequence[float]],
  budget: int,
  num_draws: int,
  seed: int,
) -> np.ndarray:
  """How often a majority among `budget` samples of a problem is right.

  A vote is right if the sample that it came from, the first with the winning final answer, was
  rewarded. With fewer samples than there are, the vote is held `num_draws` times, each time among
  other samples, drawn without replacement and kept in their order.

  Args:
    finals_PN: N final answers of each of P problems.
    rewards_PN: their rewards, 0 or 1.
    budget: samples that vote, 1 to N.
    num_draws: votes held for each problem; where all N vote, there is one.
    seed: of the draws.

  Returns:
    f64[P], the share of each problem's votes that were right.

  Raises:
    ValueError: if a problem has not as many rewards as finals, or fewer than `budget`, or if
      `budget` or `num_draws` is below 1.

  Example:
    >>> vote_accuracy([['7', '8', '8']], [[0, 1, 1]], budget=3, num_draws=20, seed=0)
    array([1.])
  """
  if budget < 1 or num_draws < 1:
    raise ValueError(f'a vote needs a budget and draws of at least 1; got {budget=}, {num_draws=}')
  rng = np.random.default_rng(seed)
  means = []
  for p, (finals, rewards) in enumerate(zip(finals_PN, rewards_PN, strict=True)):
    n = len(finals)
    if len(rewards) != n:
      raise ValueError(f'problem {p} (from 0) has {n} final answers, but {len(rewards)} rewards')
    if budget > n:
      raise ValueError(
        f'{budget=}, but problem {p} (from 0) has {n} samples; lower the budget or sample more'
      )
    shuffled = rng.permuted(np.tile(np.arange(n), (1 if budget == n else num_draws, 1)), axis=1)
    draws = np.sort(shuffled[:, :budget], axis=1)
    means.append(np.mean([_vote([finals[i] for i in d], [rewards[i] for i in d]) for d in draws]))
  return np.asarray(means)


def _vote(finals: list, rewards: list) -> bool:
  winner = majority_vote(finals)
  # No final answer, nothing to be right with, whatever a checker said.
  return winner is not None and rewards[finals.index(winner)] > 0


def vote_values(
  votes: Sequence[Mapping],
  budgets: Sequence[int] = (2, 4, 8, 16, 32),
  num_draws: int = 20,
  seed: int = 0,
) -> dict[int, dict[str, np.ndarray]]:
  """Each problem's share of right votes when samples are spent in parallel or on corrections.

  A budget of 2K answers buys a vote over 2K first answers, or K episodes of two turns and a vote
  over their K second answers.

  Args:
    votes: one record a problem, with `parallel` (finals, rewards: those of independent first
      answers) and `sequential` (finals, rewards: those of second answers).
    budgets: answers sampled, first and second ones alike; even.
    num_draws: see `vote_accuracy`.
    seed: of the draws.

  Returns:
    A budget -> {'parallel', 'sequential'}, each f64[P]: stack those of several seeds to [S, P].

  Raises:
    ValueError: if a budget is odd, or above what was sampled.
  """
  values = {}
  for budget in budgets:
    if budget % 2:
      raise ValueError(f'{budget=} is odd; an episode of two turns takes two answers')
    values[budget] = {
      kind: vote_accuracy(
        [v[kind]['finals'] for v in votes], [v[kind]['rewards'] for v in votes], n, num_draws, seed
      )
      for kind, n in (('parallel', budget), ('sequential', budget // 2))
    }
  return values


def scaling(
  votes: Sequence[Mapping],
  budgets: Sequence[int] = (2, 4, 8, 16, 32),
  num_draws: int = 20,
  seed: int = 0,
) -> dict[int, dict[str, dict[str, float]]]:
  """Sets parallel samples against corrected ones at equal budgets, with 95% intervals.

  Args:
    votes: see `vote_values`, for at least one problem.
    budgets: see `vote_values`.
    num_draws: see `vote_accuracy`.
    seed: of the draws.

  Returns:
    A budget -> {'parallel', 'sequential', 'difference'}, each {'mean', 'low', 'high'}, where the
    difference is sequential minus parallel, problem by problem.

  Raises:
    ValueError: if there are no votes, a budget is odd, or above what was sampled.

  Source: arXiv:2409.12917, Fig. 1 right. Differs: budgets below the largest are averaged over
  random subsets of the same samples.
  """
  result = {}
  for budget, x in vote_values(votes, budgets, num_draws, seed).items():
    result[budget] = {name: crossed_share(x_P[None]) for name, x_P in x.items()}
    difference_P = x['sequential'] - x['parallel']
    result[budget]['difference'] = crossed_interval(difference_P[None])
  return result
