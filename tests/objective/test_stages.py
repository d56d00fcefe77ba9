"""What the numbers of a stage do, by enumerating all episodes of a small policy, and all groups.

And the weights that follow a target, by hand.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.objective import advantages as advantages_lib
from score_jax.objective.logprobs import TokenScores
from score_jax.objective.loss import policy_loss
from score_jax.objective.stages import adapt_kl

shape_rewards = jax.jit(advantages_lib.shape_rewards)
advantages = jax.jit(advantages_lib.advantages, static_argnums=(3, 4))

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


def group_gradients(
  weight, alpha=0.0, baseline='rloo', discount=0.0, loss=our_loss, shape=shape_rewards
):
  """Gradients of every group's loss: {'turn1': [729, 3], 'turn2': [729, 9]}."""
  reward_BK = jnp.asarray(REWARD_EK[GROUPS_GE.reshape(-1)])
  weight_K, bonus_K = jnp.array(weight, jnp.float32), jnp.array([0, alpha], jnp.float32)
  shaped_BK = shape(reward_BK, weight_K, bonus_K, jnp.float32(discount))
  adv_BK = advantages(shaped_BK, reward_BK, bonus_K, G, baseline)
  got = group_gradient_function(loss)(TABLES, GROUPS_GE, adv_BK.reshape(-1, G, 2))
  return {name: np.asarray(x, float).reshape(len(GROUPS_GE), -1) for name, x in got.items()}


def mean_of(gradients):
  return {name: GROUP_P @ x for name, x in gradients.items()}


def variance_of(gradients, turn):
  x = gradients[turn]
  return GROUP_P @ ((x - GROUP_P @ x) ** 2).sum(axis=1)


@pytest.mark.parametrize('alpha', [1.0, 10.0])
@pytest.mark.parametrize('baseline', advantages_lib.BASELINES)
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


def check_bonus_leaves_turn1_alone(discount=0.0, shape=shape_rewards):
  """Turn 1's gradient must be the same with alpha = 10 as without, in every single group."""
  with_bonus = group_gradients((1, 1), 10.0, 'rloo', discount, shape=shape)
  without = group_gradients((1, 1), 0.0, 'rloo', discount, shape=shape)
  np.testing.assert_allclose(with_bonus['turn1'], without['turn1'], atol=1e-6)
  assert np.abs(with_bonus['turn2'] - without['turn2']).max() > 1, 'the bonus does nothing'


def reward_both_with_the_sum(reward_BK, weight_K, bonus_K, discount):
  """Fault: r1 + r2 + bonus multiplies the log-probs of both turns."""
  own_BK = shape_rewards(reward_BK, weight_K, bonus_K, discount)
  return jnp.broadcast_to(own_BK.sum(axis=1, keepdims=True), own_BK.shape)


def test_the_bonus_gives_turn1_no_gradient():
  check_bonus_leaves_turn1_alone()


def test_the_check_of_turn1_can_fail():
  with pytest.raises(AssertionError, match='Not equal'):
    check_bonus_leaves_turn1_alone(shape=reward_both_with_the_sum)
  with pytest.raises(AssertionError, match='Not equal'):
    check_bonus_leaves_turn1_alone(discount=0.8)
  # In expectation such a bonus rewards turn 1 for being wrong: answer 0 becomes less likely.
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


def adapted(scale, kl_BK, is_sampled_BK, target):
  arrays = [jnp.asarray(x, jnp.float32) for x in (scale, kl_BK)]
  is_sampled_BK = jnp.asarray(is_sampled_BK, bool)
  return np.asarray(adapt_kl(*arrays, is_sampled_BK, jnp.asarray(target, jnp.float32)))


@pytest.mark.parametrize(
  ('kl_B', 'is_sampled_B', 'target', 'factor'),
  [
    ([5.362, 0.0], [1, 0], 4.0, 1.2),  # the mean over both, 2.681, would be below the target
    ([5.5, 4.5, 0.0, 0.0], [1, 1, 0, 0], 5.5, 5.0 / 5.5),
    ([0.0, 4.4], [1, 1], 2.0, 1.1),  # a row that was sampled counts, also with a KL of 0
    ([0.0, 0.0], [1, 1], 2.0, 0.8),
    ([0.0, 0.0], [0, 0], 2.0, 1.0),  # none was sampled
    ([9.0, 9.0], [1, 1], 0.0, 1.0),  # no target
  ],
)
def test_a_weight_follows_the_turns_that_were_sampled(kl_B, is_sampled_B, target, factor):
  """Turn 1 of each case; turn 2, always sampled and above its target, is a turn of its own."""
  kl_BK = [(kl, 3.0) for kl in kl_B]
  is_sampled_BK = [(is_sampled, 1) for is_sampled in is_sampled_B]
  found = adapted([0.5, 2.0], kl_BK, is_sampled_BK, [target, 2.0])
  np.testing.assert_allclose(found, [0.5 * factor, 2.0 * 1.2], rtol=1e-6)


def test_a_weight_stays_within_its_range():
  """A tenth and ten times the stage's, and it comes back from there at once."""
  low = high = [1.0]
  for _ in range(40):
    low, high = adapted(low, [[0.0]], [[1]], [1.0]), adapted(high, [[9.0]], [[1]], [1.0])
  np.testing.assert_allclose([low, high], [[0.1], [10.0]], rtol=1e-6)
  np.testing.assert_allclose(adapted(low, [[9.0]], [[1]], [1.0]), [0.12], rtol=1e-6)
  np.testing.assert_allclose(adapted(high, [[0.0]], [[1]], [1.0]), [8.0], rtol=1e-6)
