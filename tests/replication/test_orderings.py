"""Comparisons of rows and their verdicts, on numbers made up here."""

import numpy as np
import pytest
from replication_rows import PLAIN
from scipy import stats

from score_jax.replication import orderings
from score_jax.replication.results import KINDS, Outcome, Result
from score_jax.replication.rows import ReplicationRow
from score_jax.replication.tables import ordering_text

N = 40


def make_outcome(first_N, second_N, ids=range(N)):
  """An evaluation of which it is known which answers were right."""
  first_N, second_N = np.asarray(first_N, float), np.asarray(second_N, float)
  values = {'acc_t1': first_N, 'acc_t2': second_N, 'delta': second_N - first_N}
  values |= {'i2c': (1 - first_N) * second_N, 'c2i': first_N * (1 - second_N)}
  values['changed'] = (first_N != second_N).astype(float)
  return Outcome(tuple(ids), ('2',) * N, values, np.zeros(N))


def make_result(name, outcomes):
  """A row whose greedy and sampled evaluations are the same, one outcome a seed."""
  seeds = dict(enumerate(outcomes))
  kinds = {kind: seeds if kind in ('greedy', 'sampled') else {} for kind in KINDS}
  row = ReplicationRow(name, name.title(), 'method', PLAIN)
  return Result(row, dict.fromkeys(seeds, {}), '', '', kinds, {}, {})


def guesses(seed, share):
  return (np.random.default_rng(seed).random(N) < share).astype(float)


RIGHT, WRONG = np.ones(N), np.zeros(N)


@pytest.mark.parametrize(
  ('low', 'high', 'word'),
  [
    (0.01, 0.1, 'held'),
    (-0.01, 0.1, 'not separated'),
    (0.0, 0.1, 'not separated'),
    (-0.1, 0.0, 'not separated'),
    (-0.1, -0.01, 'reversed'),
  ],
)
def test_verdict_words(low, high, word):
  assert orderings.verdict({'mean': 0.0, 'low': low, 'high': high}) == word


def test_no_interval_no_verdict():
  assert orderings.verdict(None) == 'not measured'


@pytest.mark.parametrize(
  ('score', 'base', 'word'),
  [
    ((WRONG, RIGHT), (WRONG, WRONG), 'held'),
    ((WRONG, WRONG), (WRONG, RIGHT), 'reversed'),
    ((guesses(0, 0.5), guesses(1, 0.5)), (guesses(2, 0.5), guesses(3, 0.5)), 'not separated'),
  ],
)
def test_claims_fall_as_they_were_made_to(score, base, word):
  results = {
    name: make_result(name, [make_outcome(*answers)] * 2)
    for name, answers in (('score', score), ('base', base))
  }
  judged = orderings.orderings(results)
  ((only,),) = [judgements for _, judgements in judged[:1]]
  assert (only['other'], only['verdict']) == ('base', word)
  assert only['sentence'].startswith(f"**{word}**: SCoRe's Δ(t1,t2) above that of “Base” (paper: ")
  assert f'Here: **{word} 1**' in ordering_text(judged)


def test_two_deltas_can_lie_two_apart():
  results = [
    make_result('score', [make_outcome(WRONG, RIGHT)]),
    make_result('base', [make_outcome(RIGHT, WRONG)]),
  ]
  found = orderings.difference(*results, 'greedy', 'delta')
  assert (found['mean'], found['high']) == (2.0, 2.0)
  assert found['low'] == pytest.approx(
    2 - 2 * 1.959964 / N
  )  # half a problem on either side, doubled


@pytest.mark.parametrize('key', ['acc_t1', 'acc_t2', 'delta', 'changed'])
def test_differences_are_of_the_same_problems_and_seeds(key):
  ours = [make_outcome(guesses(s, 0.5), guesses(s + 10, 0.8)) for s in range(3)]
  theirs = [make_outcome(guesses(s + 20, 0.5), guesses(s + 30, 0.6)) for s in range(2)]
  found = orderings.difference(
    make_result('score', ours), make_result('base', theirs), 'sampled', key
  )
  gaps = [[ours[s].values[key][n] - theirs[s].values[key][n] for n in range(N)] for s in range(2)]
  # The interval, from the formula: seeds and problems both vary, and the degrees of freedom follow.
  scale = 2 if key == 'delta' else 1
  by_seed = np.var(np.mean(gaps, axis=1), ddof=1) / 2
  by_problem = (np.sum((np.mean(gaps, axis=0) - np.mean(gaps)) ** 2) + scale**2) / N**2
  freedom = (by_seed + by_problem) ** 2 / (by_seed**2 + by_problem**2 / (N - 1))
  half = stats.t.ppf(0.975, freedom) * np.sqrt(by_seed + by_problem)
  assert found == {
    'mean': pytest.approx(np.mean(gaps)),
    'low': pytest.approx(max(-scale, np.mean(gaps) - half)),
    'high': pytest.approx(min(scale, np.mean(gaps) + half)),
    **{'seeds': 2, 'wanted_seeds': 2, 'problems': N, 'wanted_problems': N},
  }


def test_problems_are_matched_by_id_and_not_by_place():
  second_N = guesses(0, 0.5)
  forth = make_outcome(WRONG, second_N)
  back = make_outcome(WRONG, second_N[::-1], reversed(range(N)))
  results = {'score': make_result('score', [forth]), 'base': make_result('base', [back])}
  found = orderings.comparisons(results, 'greedy')['base']
  assert found['acc_t2']['high'] == pytest.approx(1.959964 / N)  # no problem differs
  assert found['mcnemar_t2'] == {0: 1.0}
  other = make_result('base', [make_outcome(WRONG, second_N, range(N, 2 * N))])
  with pytest.raises(ValueError, match='no problem in common'):
    orderings.difference(results['score'], other, 'greedy', 'delta')


def test_mcnemar_is_of_each_seed():
  ours = [make_outcome(WRONG, guesses(s, 0.8)) for s in range(2)]
  theirs = [make_outcome(WRONG, guesses(s + 5, 0.5)) for s in range(2)]
  found = orderings.turn2_mcnemar(make_result('score', ours), make_result('base', theirs), 'greedy')
  assert list(found) == [0, 1]
  for s in range(2):
    gained = sum(ours[s].values['acc_t2'][n] > theirs[s].values['acc_t2'][n] for n in range(N))
    lost = sum(ours[s].values['acc_t2'][n] < theirs[s].values['acc_t2'][n] for n in range(N))
    tail = stats.binom.cdf(min(gained, lost), gained + lost, 0.5)
    assert found[s] == pytest.approx(min(1, 2 * tail))


@pytest.mark.parametrize(
  ('control', 'base', 'loud'), [(RIGHT, WRONG, True), (WRONG, RIGHT, False), (RIGHT, RIGHT, False)]
)
def test_a_control_that_gains_is_reported_loudly(control, base, loud):
  results = {
    'random_reward': make_result('random_reward', [make_outcome(control, control)]),
    'base': make_result('base', [make_outcome(base, base)]),
  }
  text = ordering_text(orderings.orderings(results))
  assert ('**WARNING, did not hold**' in text) is loud
  assert ('Here: **did not hold 2**' in text) is loud
  assert ('Here: **held 2**' in text) is not loud


def test_votes_are_judged_over_seeds_and_problems():
  def samples(count, is_right):
    return {'finals': ['7' if is_right else '5'] * count, 'rewards': [float(is_right)] * count}

  # Parallel samples are right on every second problem, corrected ones on all, or on none.
  for corrected, word in ((True, 'held'), (False, 'reversed')):
    votes = [
      {'id': n, 'parallel': samples(32, n % 2 == 0), 'sequential': samples(16, corrected)}
      for n in range(N)
    ]
    result = make_result('score', [make_outcome(WRONG, RIGHT)])
    result.votes.update({0: votes, 1: votes})
    judged = orderings.judge_voting({'score': result})
    assert judged['verdict'] == word
    assert judged['sampled']['mean'] == pytest.approx(0.5 if corrected else -0.5)
