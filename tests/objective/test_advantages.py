"""Shaped rewards and advantages, against plain loops and by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.objective.advantages import BASELINES, advantages, shape_rewards

shape_rewards = jax.jit(shape_rewards)
advantages = jax.jit(advantages, static_argnums=(3, 4))


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
  # Stage I rewards turn 2 with r2, and turn 1 not at all.
  stage1 = shape_rewards(r, f32(0, 1), f32(0, 0), jnp.float32(0))
  assert stage1.tolist() == [[0, 1], [0, 0], [0, 1]]
  # Stage II: r1, and r2 + 10 (r2 - r1): 1 + 10, 0 - 10, 1 + 0.
  stage2 = shape_rewards(r, f32(1, 1), f32(0, 10), jnp.float32(0))
  assert stage2.tolist() == [[0, 11], [1, -10], [1, 1]]
  # With a discount of 0.5 turn 1 gets r1 and half of turn 2: 0 + 5.5, 1 - 5, 1 + 0.5.
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
    shaped = shaped_PGK[p, :, k].copy()
    if not is_alike:  # no other sample with its r1: all others, the bonus's -alpha r1 taken out
      num_alone += 1
      shaped += bonus_K[k] * reward_PGK[p, :, k - 1]
    mean = sum(shaped[j] for j in peers) / len(peers)
    want[p, i, k] = shaped_PGK[p, i, k] if baseline == 'none' else shaped[i] - mean
  got = advantages(shaped_BK, reward_BK, jnp.asarray(bonus_K), G, baseline)
  np.testing.assert_allclose(got, want.reshape(-1, K), atol=1e-5)
  if baseline == 'rloo':
    np.testing.assert_allclose(got.reshape(12, G, K).sum(axis=1), 0, atol=1e-5)
  if baseline == 'rloo_given_r1' and K > 1:
    assert num_alone > 0, 'the fallback was not reached'


def test_advantages_by_hand():
  # Four samples, alpha = 10: r1 = 1 1 0 0, r2 = 1 0 1 0, turn 2 gets 1, -10, 11, 0.
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
