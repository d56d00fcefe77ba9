"""The loss and its sums over tokens, against plain loops; choices that are refused.

`test_kl_gradient.py` judges the gradient of the KL term, `test_stages.py` that of the rewards.
"""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.objective.logprobs import TokenScores
from score_jax.objective.loss import (
  KL_CREDITS,
  KL_ESTIMATORS,
  after,
  kl_surrogate,
  policy_loss,
  turn_sums,
)


def random_turns(rng, B=3, K=3, T=7):
  """f32[B, T] numbers and bool[B, K, T] disjoint masks; the last turn of row 0 is empty."""
  turn_BT = np.sort(rng.integers(0, K + 1, (B, T)), axis=1)
  turn_BT[0] = np.minimum(turn_BT[0], K - 1)
  mask_BKT = turn_BT[:, None] == np.arange(1, K + 1)[None, :, None]
  return rng.normal(size=(B, T)).astype(np.float32), mask_BKT


def test_sums_over_tokens_are_loops():
  x_BT, mask_BKT = random_turns(np.random.default_rng(8))
  (B, K, T), want_sum, want_after = mask_BKT.shape, np.zeros((3, 3)), np.zeros((3, 7))
  for b, k, t in itertools.product(range(B), range(K), range(T)):
    if mask_BKT[b, k, t]:
      want_sum[b, k] += x_BT[b, t]
      want_after[b, t] = sum(x_BT[b, u] for u in range(t + 1, T) if mask_BKT[b, k, u])
  got_sum = turn_sums(jnp.asarray(x_BT), jnp.asarray(mask_BKT))
  np.testing.assert_allclose(got_sum, want_sum, atol=1e-6)
  assert got_sum[0, 2] == 0 and not mask_BKT[0, 2].any()
  np.testing.assert_allclose(after(x_BT, jnp.asarray(mask_BKT)), want_after, atol=1e-6)


@pytest.mark.parametrize('normaliser', [3.0, 64.0])
@pytest.mark.parametrize('credit', KL_CREDITS)
@pytest.mark.parametrize('estimator', KL_ESTIMATORS)
def test_policy_loss_is_a_loop(estimator, credit, normaliser):
  rng = np.random.default_rng(9)
  logp, mask = random_turns(rng)
  ref_logp, kl = rng.normal(size=(2, *logp.shape)).astype(np.float32)
  adv, weight = rng.normal(size=(3, 3)).astype(np.float32), np.array([0.5, 0.1, 2], np.float32)
  k1 = logp - ref_logp
  want = 0.0
  for b, k in itertools.product(range(3), range(3)):
    tokens = np.flatnonzero(mask[b, k])  # none in an empty turn, which adds 0
    for i, t in enumerate(tokens):
      own = {'exact': kl[b, t], 'k2': k1[b, t] ** 2 / 2, 'k1_reward': k1[b, t] * logp[b, t]}
      to_go = (kl if estimator == 'exact' else k1)[b, tokens[i + 1 :]].sum()
      penalty = to_go * logp[b, t] if credit == 'turn' else 0.0
      want += -adv[b, k] * logp[b, t] + weight[k] * (own[estimator] + penalty)
  scores = TokenScores(*map(jnp.asarray, (logp, ref_logp, kl, np.zeros_like(kl))))
  args = (jnp.asarray(mask), jnp.asarray(adv), jnp.asarray(weight), normaliser, estimator, credit)
  assert float(policy_loss(scores, *args)) == pytest.approx(want / normaliser, rel=1e-4)


@pytest.mark.parametrize(
  ('estimator', 'credit', 'message'),
  [
    ('k1', 'turn', 'zero expected gradient'),
    ('k1_loss', 'token', 'zero expected gradient'),
    ('k3', 'turn', "kl_estimator='k3' is none of"),
    ('exact', 'episode', "kl_credit='episode' is none of"),
  ],
)
def test_wrong_choices_are_refused(estimator, credit, message):
  scores, mask_BKT = TokenScores(*[jnp.zeros((1, 2))] * 4), jnp.ones((1, 2, 2), bool)
  with pytest.raises(ValueError, match=message):
    kl_surrogate(scores, mask_BKT, estimator, credit)
  with pytest.raises(ValueError, match=message):
    policy_loss(scores, mask_BKT, jnp.ones((1, 2)), jnp.ones(2), 1.0, estimator, credit)
