"""From raw rewards to per-turn advantages: weights, bonus, discount, baseline."""

import functools

import chex
import jax
import jax.numpy as jnp

BASELINES = ('rloo', 'rloo_given_r1', 'none')
# These sums are tiny, and accelerators would round their inputs to bfloat16 by default.
_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def shape_rewards(
  reward_BK: jax.Array, reward_weight_K: jax.Array, bonus_K: jax.Array, discount: jax.Array
) -> jax.Array:
  """The shaped reward of each turn, which all of its tokens share.

      s_k = w_k r_k + bonus_k (r_k - r_(k-1)),      shaped_k = sum_(j >= k) gamma^(j-k) s_j

  With gamma = 0 a turn is rewarded for itself alone, so the bonus reaches turn 2 and never turn 1:
  with alpha = 10 a bonus that leaks into turn 1 would reward it for being wrong.

  Args:
    reward_BK: f32[B, K] raw verdicts, 0 or 1.
    reward_weight_K: f32[K].
    bonus_K: f32[K], the first one 0.
    discount: f32[] gamma in [0, 1].

  Returns:
    f32[B, K].

  Raises:
    AssertionError: at trace time, if ranks, types or K disagree.

  Example:
    >>> r = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    >>> shape_rewards(r, jnp.ones(2), jnp.array([0.0, 10.0]), jnp.float32(0)).tolist()
    [[0.0, 11.0], [1.0, -10.0]]

  Source: arXiv:2409.12917, Eq. 3, Eq. 4 and Fig. 9 (camera-ready).
  """
  chex.assert_rank([reward_BK, reward_weight_K, bonus_K], [2, 1, 1])
  chex.assert_type([reward_BK, reward_weight_K, bonus_K], jnp.float32)
  chex.assert_equal_shape([reward_BK[0], reward_weight_K, bonus_K])
  before_BK = jnp.concatenate([jnp.zeros_like(reward_BK[:, :1]), reward_BK[:, :-1]], axis=1)
  own_BK = reward_weight_K[None] * reward_BK + bonus_K[None] * (reward_BK - before_BK)
  K = reward_BK.shape[1]
  ahead_KK = jnp.arange(K)[None, :] - jnp.arange(K)[:, None]  # [k, j] = j - k
  # 0 ** 0 is 1: a turn always gets its own reward.
  power_KK = jnp.where(ahead_KK == 0, 1.0, discount ** jnp.maximum(ahead_KK, 1))
  credit_KK = jnp.where(ahead_KK >= 0, power_KK, 0.0)
  return _einsum('bj,kj->bk', own_BK, credit_KK)


def check_baseline(baseline: str, samples_per_problem: int) -> None:
  """Refuses a baseline that is unknown or lacks the samples it compares.

  Args:
    baseline: config.objective.baseline.
    samples_per_problem: G.

  Raises:
    ValueError: with what to change.
  """
  G = samples_per_problem
  if baseline not in BASELINES:
    raise ValueError(f'config.objective.baseline={baseline!r} is none of {", ".join(BASELINES)}')
  if baseline != 'none' and G < 2:
    raise ValueError(
      f'config.objective.baseline={baseline!r} compares samples of one problem: '
      f'config.rollout.samples_per_problem={G} must be at least 2'
    )


def advantages(
  shaped_BK: jax.Array,
  reward_BK: jax.Array,
  bonus_K: jax.Array,
  samples_per_problem: int,
  baseline: str = 'rloo',
) -> jax.Array:
  """Subtracts from each episode's shaped reward that of its problem's other samples.

      rloo:           A_i = R_i - mean_(j != i) R_j  =  G/(G-1) (R_i - mean R)
      rloo_given_r1:  the same, the mean over those j whose turn before was graded as i's was

  Given turn 2's context r1 is a constant, so a baseline may depend on it. In expectation the bonus
  is then a reward weight of 1 + alpha on turn 2, and `-alpha r1` only adds variance to plain
  RLOO, which 'rloo_given_r1' removes. Where no other sample had the same r1 it takes all others,
  less what their and plus what the own `-alpha r1` put in.

  Args:
    shaped_BK: f32[B, K] from `shape_rewards`; rows problem-major, B = P * G.
    reward_BK: f32[B, K] raw verdicts.
    bonus_K: f32[K].
    samples_per_problem: G; at least 2 unless the baseline is 'none'.
    baseline: one of `BASELINES`.

  Returns:
    f32[B, K]; sums to 0 over a problem for 'rloo'.

  Raises:
    AssertionError: at trace time, if shapes disagree or B is not a multiple of G.
    ValueError: for an unknown baseline, or one sample where others are needed.

  Example:
    >>> R = jnp.array([[1.0], [0.0], [0.0]])
    >>> advantages(R, R, jnp.zeros(1), 3).tolist()
    [[1.0], [-0.5], [-0.5]]

  Source: RLOO, arXiv:2402.14740; used by arXiv:2409.12917, Eq. 2.
  """
  chex.assert_rank([shaped_BK, reward_BK, bonus_K], [2, 2, 1])
  chex.assert_type([shaped_BK, reward_BK, bonus_K], jnp.float32)
  chex.assert_equal_shape([shaped_BK, reward_BK])
  check_baseline(baseline, samples_per_problem)
  if baseline == 'none':
    return shaped_BK
  G = samples_per_problem
  B, K = shaped_BK.shape
  chex.assert_is_divisible(B, G)
  shaped_PGK = shaped_BK.reshape(B // G, G, K)
  is_other_GG = ~jnp.eye(G, dtype=bool)
  if baseline == 'rloo':
    mean_PGK = _einsum('gj,pjk->pgk', is_other_GG.astype(jnp.float32), shaped_PGK) / (G - 1)
    return (shaped_PGK - mean_PGK).reshape(B, K)
  before_BK = jnp.concatenate([jnp.zeros_like(reward_BK[:, :1]), reward_BK[:, :-1]], axis=1)
  before_PGK = before_BK.reshape(B // G, G, K)
  is_alike_PGGK = before_PGK[:, :, None] == before_PGK[:, None, :]
  is_peer_PGGK = is_alike_PGGK & is_other_GG[None, :, :, None]
  num_peers_PGK = is_peer_PGGK.sum(axis=2)
  peers_PGK = _einsum('pgjk,pjk->pgk', is_peer_PGGK.astype(jnp.float32), shaped_PGK)
  known_PGK = -bonus_K[None, None] * before_PGK
  others_PGK = _einsum('gj,pjk->pgk', is_other_GG.astype(jnp.float32), shaped_PGK - known_PGK) / (
    G - 1
  )
  mean_PGK = jnp.where(
    num_peers_PGK > 0, peers_PGK / jnp.maximum(num_peers_PGK, 1), others_PGK + known_PGK
  )
  return (shaped_PGK - mean_PGK).reshape(B, K)
