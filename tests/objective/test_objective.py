"""Rewards, advantages, scores and loss, against plain loops and enumerated policies."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.objective.advantages import BASELINES, advantages, shape_rewards
from score_jax.objective.logprobs import TokenScores
from score_jax.objective.loss import KL_CREDITS, KL_ESTIMATORS, after, policy_loss, turn_sums


def f32(*values):
  return jnp.asarray(values, jnp.float32)


@pytest.mark.parametrize('discount', [0.0, 0.8, 1.0])
@pytest.mark.parametrize('K', [1, 2, 3])
def test_shape_rewards_is_a_loop(K, discount):
  rng = np.random.default_rng(K)
  reward_BK = rng.integers(0, 2, (16, K)).astype(np.float32)
  weight_K, bonus_K = rng.normal(size=(2, K)).astype(np.float32)
  bonus_K[0] = 0.0
  want = np.zeros((16, K))
  for b, k, j in itertools.product(range(16), range(K), range(K)):
    if j >= k:
      before = reward_BK[b, j - 1] if j else 0.0
      own = weight_K[j] * reward_BK[b, j] + bonus_K[j] * (reward_BK[b, j] - before)
      want[b, k] += discount ** (j - k) * own
  got = shape_rewards(reward_BK, jnp.asarray(weight_K), jnp.asarray(bonus_K), jnp.float32(discount))
  np.testing.assert_allclose(got, want, atol=1e-6)


def test_shape_rewards_by_hand():
  r = f32([0, 1], [1, 0], [1, 1])
  # Stage I pays r2 to turn 2 and nothing to turn 1.
  stage1 = shape_rewards(r, f32(0, 1), f32(0, 0), jnp.float32(0))
  assert stage1.tolist() == [[0, 1], [0, 0], [0, 1]]
  # Stage II: r1, and r2 + 10 (r2 - r1): 1 + 10, 0 - 10, 1 + 0.
  stage2 = shape_rewards(r, f32(1, 1), f32(0, 10), jnp.float32(0))
  assert stage2.tolist() == [[0, 11], [1, -10], [1, 1]]
  # With a discount of 0.5 turn 1 is paid r1 and half of turn 2: 0 + 5.5, 1 - 5, 1 + 0.5.
  leaky = shape_rewards(r, f32(1, 1), f32(0, 10), jnp.float32(0.5))
  assert leaky.tolist() == [[5.5, 11], [-4, -10], [1.5, 1]]


def peers_of(i, k, reward_GK, baseline):
  """The samples that i is compared with at turn k, and whether they share its r1."""
  others = [j for j in range(len(reward_GK)) if j != i]
  if baseline == 'rloo' or k == 0:
    return others, True
  alike = [j for j in others if reward_GK[j, k - 1] == reward_GK[i, k - 1]]
  return (alike, True) if alike else (others, False)


@pytest.mark.parametrize('baseline', BASELINES)
@pytest.mark.parametrize(('G', 'K'), [(2, 1), (2, 2), (3, 2), (5, 3)])
def test_advantages_are_a_loop(baseline, G, K):
  rng = np.random.default_rng(G)
  reward_PGK = rng.integers(0, 2, (12, G, K)).astype(np.float32)
  bonus_K = np.array([0, 10, 3], np.float32)[:K]
  reward_BK = jnp.asarray(reward_PGK.reshape(-1, K))
  shaped_BK = shape_rewards(reward_BK, jnp.ones(K), jnp.asarray(bonus_K), jnp.float32(0))
  shaped_PGK = np.asarray(shaped_BK).reshape(12, G, K)
  want, num_alone = np.zeros((12, G, K)), 0
  for p, i, k in itertools.product(range(12), range(G), range(K)):
    peers, is_alike = peers_of(i, k, reward_PGK[p], baseline)
    pay = shaped_PGK[p, :, k].copy()
    if not is_alike:  # no other sample with its r1: all others, the bonus's -alpha r1 taken out
      num_alone += 1
      pay += bonus_K[k] * reward_PGK[p, :, k - 1]
    mean = sum(pay[j] for j in peers) / len(peers)
    want[p, i, k] = shaped_PGK[p, i, k] if baseline == 'none' else pay[i] - mean
  got = advantages(shaped_BK, reward_BK, jnp.asarray(bonus_K), G, baseline)
  np.testing.assert_allclose(got, want.reshape(-1, K), atol=1e-5)
  if baseline == 'rloo':
    np.testing.assert_allclose(got.reshape(12, G, K).sum(axis=1), 0, atol=1e-5)
  if baseline == 'rloo_given_r1' and K > 1:
    assert num_alone > 0, 'the fallback was not reached'


def test_advantages_by_hand():
  # Four samples, alpha = 10: r1 = 1 1 0 0, r2 = 1 0 1 0, turn 2 is paid 1, -10, 11, 0.
  r = f32([1, 1], [1, 0], [0, 1], [0, 0])
  shaped = shape_rewards(r, f32(1, 1), f32(0, 10), jnp.float32(0))
  rloo = advantages(shaped, r, f32(0, 10), 4, 'rloo')[:, 1]
  # Mean 0.5, times 4 / 3: the right answer after a right one earns 2 / 3, after a wrong one 14.
  np.testing.assert_allclose(rloo, [2 / 3, -14, 14, -2 / 3], atol=1e-5)
  given_r1 = advantages(shaped, r, f32(0, 10), 4, 'rloo_given_r1')[:, 1]
  assert given_r1.tolist() == [11, -11, 11, -11]  # 1 + 10, whatever the first answer was


def test_advantages_refuse():
  one = jnp.ones((4, 2))
  with pytest.raises(ValueError, match="baseline='mean' is none of"):
    advantages(one, one, jnp.zeros(2), 2, 'mean')
  for baseline in ('rloo', 'rloo_given_r1'):
    with pytest.raises(ValueError, match='samples_per_problem=1 must be at least 2'):
      advantages(one, one, jnp.zeros(2), 1, baseline)
  np.testing.assert_array_equal(advantages(one, one, jnp.zeros(2), 1, 'none'), one)
  with pytest.raises(AssertionError):
    advantages(one, one, jnp.zeros(2), 3)


# A policy of two turns with three answers each, the first one right; turn 2 sees turn 1's answer.
# It has 9 episodes, so all groups of G = 3 samples (729) can be written down.
A, G = 3, 3
TABLES = {
  'turn1': jnp.asarray(np.random.default_rng(5).normal(size=A), jnp.float32),
  'turn2': jnp.asarray(np.random.default_rng(6).normal(size=(A, A)), jnp.float32),
}
EPISODES = np.array(list(itertools.product(range(A), range(A))))
REWARD_EK = (EPISODES == 0).astype(np.float32)
GROUPS_GE = np.array(list(itertools.product(range(len(EPISODES)), repeat=G)))
ONE_TOKEN_A_TURN = jnp.broadcast_to(jnp.eye(2, dtype=bool), (G, 2, 2))


def episode_logp(tables):
  """f32[E, 2]: log-prob of each turn of each episode."""
  first, second = EPISODES.T
  logp1 = jax.nn.log_softmax(tables['turn1'])[first]
  return jnp.stack([logp1, jax.nn.log_softmax(tables['turn2'])[first, second]], axis=1)


EPISODE_P = np.exp(np.asarray(episode_logp(TABLES), float).sum(axis=1))
GROUP_P = EPISODE_P[GROUPS_GE].prod(axis=1)


def our_loss(scores, mask_BKT, adv_BK, reward_BK):
  """The package's loss without KL; `reward_BK` is for the faulty ones."""
  return policy_loss(scores, mask_BKT, adv_BK, jnp.zeros(2), float(G))


@functools.cache
def group_gradient_function(loss):
  """Compiles the gradients of all groups' losses, as a function of their advantages."""

  def group_loss(tables, group_G, adv_GK):
    logp_GT = episode_logp(tables)[group_G]
    scores = TokenScores(logp_GT, logp_GT, jnp.zeros_like(logp_GT), jnp.zeros_like(logp_GT))
    return loss(scores, ONE_TOKEN_A_TURN, adv_GK, jnp.asarray(REWARD_EK)[group_G])

  return jax.jit(jax.vmap(jax.grad(group_loss), in_axes=(None, 0, 0)))


def group_gradients(weight, alpha=0.0, baseline='rloo', discount=0.0, loss=our_loss, pay=None):
  """Gradients of every group's loss: {'turn1': [729, 3], 'turn2': [729, 9]}."""
  reward_BK = jnp.asarray(REWARD_EK[GROUPS_GE.reshape(-1)])
  weight_K, bonus_K = jnp.asarray(weight, jnp.float32), f32(0, alpha)
  shaped_BK = (pay or shape_rewards)(reward_BK, weight_K, bonus_K, jnp.float32(discount))
  adv_BK = advantages(shaped_BK, reward_BK, bonus_K, G, baseline)
  got = group_gradient_function(loss)(TABLES, GROUPS_GE, adv_BK.reshape(-1, G, 2))
  return {name: np.asarray(x, float).reshape(len(GROUPS_GE), -1) for name, x in got.items()}


def mean_of(gradients):
  return {name: GROUP_P @ x for name, x in gradients.items()}


def variance_of(gradients, turn):
  x = gradients[turn]
  return GROUP_P @ ((x - GROUP_P @ x) ** 2).sum(axis=1)


@pytest.mark.parametrize('alpha', [1.0, 10.0])
@pytest.mark.parametrize('baseline', BASELINES)
def test_the_bonus_is_in_expectation_a_reward_weight(baseline, alpha):
  bonus = mean_of(group_gradients((1, 1), alpha, baseline))
  weight = mean_of(group_gradients((1, 1 + alpha), 0.0, baseline))
  for turn in ('turn1', 'turn2'):
    assert np.abs(bonus[turn]).max() > 0.01
    np.testing.assert_allclose(bonus[turn], weight[turn], atol=2e-6 * (1 + alpha))


def test_the_bonus_adds_variance_that_the_conditioned_baseline_removes():
  alpha = 10.0
  bonus = {b: group_gradients((1, 1), alpha, b) for b in ('rloo', 'rloo_given_r1')}
  weight = {b: group_gradients((1, 1 + alpha), 0.0, b) for b in ('rloo', 'rloo_given_r1')}
  excess = variance_of(bonus['rloo'], 'turn2') / variance_of(weight['rloo'], 'turn2')
  assert excess > 1.1
  # Conditioned on r1, bonus and weight are the same in each group, not only in expectation.
  for turn in ('turn1', 'turn2'):
    got, want = bonus['rloo_given_r1'][turn], weight['rloo_given_r1'][turn]
    np.testing.assert_allclose(got, want, atol=1e-5)
  given_r1 = variance_of(bonus['rloo_given_r1'], 'turn2')
  assert given_r1 < variance_of(bonus['rloo'], 'turn2')


def check_bonus_leaves_turn1_alone(discount=0.0, pay=None):
  """Turn 1's gradient must be the same with alpha = 10 as without, in every single group."""
  with_bonus = group_gradients((1, 1), 10.0, 'rloo', discount, pay=pay)
  without = group_gradients((1, 1), 0.0, 'rloo', discount, pay=pay)
  np.testing.assert_allclose(with_bonus['turn1'], without['turn1'], atol=1e-6)
  assert np.abs(with_bonus['turn2'] - without['turn2']).max() > 1, 'the bonus does nothing'


def pay_the_sum_to_both(reward_BK, weight_K, bonus_K, discount):
  """Fault: r1 + r2 + bonus multiplies the log-probs of both turns."""
  own_BK = shape_rewards(reward_BK, weight_K, bonus_K, discount)
  return jnp.broadcast_to(own_BK.sum(axis=1, keepdims=True), own_BK.shape)


def test_the_bonus_gives_turn1_no_gradient():
  check_bonus_leaves_turn1_alone()


def test_the_check_of_turn1_can_fail():
  with pytest.raises(AssertionError, match='Not equal'):
    check_bonus_leaves_turn1_alone(pay=pay_the_sum_to_both)
  with pytest.raises(AssertionError, match='Not equal'):
    check_bonus_leaves_turn1_alone(discount=0.8)
  # In expectation such a bonus pays turn 1 to be wrong: answer 0 becomes less likely.
  leak = mean_of(group_gradients((0, 0), 10.0, discount=0.8))['turn1']
  weight = mean_of(group_gradients((0, 10), 0.0, discount=0.8))['turn1']
  assert leak[0] - weight[0] > 0.1  # of the loss, which goes down


def check_gradient_is_the_objectives(loss):
  """With all later reward credited, the expected gradient is that of -E[r1 + r2], enumerated."""

  def objective(tables):
    return jnp.sum(jnp.exp(episode_logp(tables).sum(axis=1)) * REWARD_EK.sum(axis=1))

  want = jax.jit(jax.grad(objective))(TABLES)
  got = mean_of(group_gradients((1, 1), discount=1.0, loss=loss))
  for turn, expected in want.items():
    np.testing.assert_allclose(got[turn], -np.ravel(expected), atol=1e-5)


def loss_is_the_reward(scores, mask_BKT, adv_BK, reward_BK):
  """Fault: the loss is a number that no parameter is in."""
  return -jnp.mean(reward_BK) + 0.0 * jnp.sum(scores.logp)


def test_the_loss_has_the_policy_gradient():
  check_gradient_is_the_objectives(our_loss)


def test_the_check_of_the_policy_gradient_can_fail():
  with pytest.raises(AssertionError, match='Not equal'):
    check_gradient_is_the_objectives(loss_is_the_reward)


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
      charge = to_go * logp[b, t] if credit == 'turn' else 0.0
      want += -adv[b, k] * logp[b, t] + weight[k] * (own[estimator] + charge)
  scores = TokenScores(*map(jnp.asarray, (logp, ref_logp, kl, np.zeros_like(kl))))
  args = (jnp.asarray(mask), jnp.asarray(adv), jnp.asarray(weight), normaliser, estimator, credit)
  assert float(policy_loss(scores, *args)) == pytest.approx(want / normaliser, rel=1e-4)
