"""The policy-gradient loss over the turn axis, with a KL term of its own for every turn.

    loss = - 1/n sum_bkt m_bkt A_bk log pi(a_bt) + 1/n sum_k w_k KL_k

`n` is declared (the episodes of the whole batch by default), never counted from the tokens at
hand: so micro-batches add up to the full batch, and `w_k` weighs a *sequence* KL.

The gradient of a turn's KL has two parts: what a token's distribution does to its own term, and
what the choice of a token does to the terms of the tokens after it (`kl_credit='turn'` keeps both,
'token' only the first).

    grad KL_k = E[ sum_t grad KL_t + sum_t grad log pi(a_t) sum_(t' > t) KL_t' ]

Where sampler and scorer are not quite the same policy, tokens come of another distribution than pi.
`importance_weights` makes up for that in every expectation over a token's choice.

`KL_ESTIMATORS` says what KL_t is. k1 = log pi - log pi_ref as a *loss* has zero expected gradient
on-policy, since E[grad log pi] = 0: it would hold nothing near the reference, and is refused.
"""

import chex
import jax
import jax.numpy as jnp

from score_jax.core.masked import masked_sum
from score_jax.objective.logprobs import TokenScores


def _exact(scores, weight_BT):
  """KL_t as the sum over the vocabulary, which is differentiated itself: no matter which token."""
  del weight_BT
  return scores.kl, jnp.zeros_like(scores.kl), scores.kl


def _k1_reward(scores, weight_BT):
  """k1 as a penalty on the reward of its token."""
  k1_BT = weight_BT * (scores.logp - scores.ref_logp)
  return jnp.zeros_like(k1_BT), k1_BT, k1_BT


def _k2(scores, weight_BT):
  """(log pi - log pi_ref)^2 / 2 as a loss: its gradient is that of KL_t on-policy."""
  k1_BT = scores.logp - scores.ref_logp
  return 0.5 * weight_BT * jnp.square(k1_BT), jnp.zeros_like(k1_BT), weight_BT * k1_BT


# An estimator makes three f32[B, T] of `TokenScores` and importance weights: the token's own part,
# differentiated; the penalty on the reward of the token, detached; KL_t, for which earlier tokens
# of the turn are penalised. What it takes of the sampled token, it weighs. A new one is a function
# and its entry here.
KL_ESTIMATORS = {'exact': _exact, 'k1_reward': _k1_reward, 'k2': _k2}
KL_CREDITS = ('turn', 'token')


def check_kl_choice(estimator: str, credit: str) -> None:
  """Refuses estimators that are wrong or unknown.

  Args:
    estimator: config.objective.kl_estimator.
    credit: config.objective.kl_credit.

  Raises:
    ValueError: saying what to use instead.
  """
  if estimator in ('k1', 'k1_loss'):
    raise ValueError(
      f'config.objective.kl_estimator={estimator!r}: k1 = log pi - log pi_ref as a loss has zero '
      f'expected gradient on-policy (E[grad log pi] = 0), so it would hold nothing near the '
      f"reference; use 'exact', 'k2', or 'k1_reward', which takes k1 from the reward"
    )
  if estimator not in KL_ESTIMATORS:
    known = ', '.join(KL_ESTIMATORS)
    raise ValueError(f'config.objective.kl_estimator={estimator!r} is none of {known}')
  if credit not in KL_CREDITS:
    raise ValueError(f'config.objective.kl_credit={credit!r} is none of {", ".join(KL_CREDITS)}')


def after(x_BT: jax.Array, mask_BKT: jax.Array) -> jax.Array:
  """Sums what comes after each token within its turn.

  Args:
    x_BT: f32[B, T].
    mask_BKT: bool[B, K, T] disjoint masks of the turns.

  Returns:
    f32[B, T]: sum over t' > t of the same turn; 0 outside the turns.

  Example:
    >>> x, mask = jnp.array([[1.0, 2.0, 3.0]]), jnp.array([[[True, True, False]]])
    >>> after(x, mask).tolist()
    [[2.0, 0.0, 0.0]]
  """
  x_BKT = jnp.where(mask_BKT, x_BT[:, None], 0.0)
  from_here_BKT = jnp.cumsum(x_BKT[..., ::-1], axis=-1)[..., ::-1]
  return jnp.sum(jnp.where(mask_BKT, from_here_BKT - x_BKT, 0.0), axis=1)


def importance_weights(logp_BT: jax.Array, sampled_logp_BT: jax.Array, cap: float) -> jax.Array:
  """How much likelier the scorer makes each sampled token than the sampler did, at most `cap`.

      w_t = min(pi(a_t) / mu(a_t), cap)

  The sampler's distribution mu is not quite the scorer's pi where it computes in another type or by
  another kernel. An expectation over a_t ~ pi is one over a_t ~ mu of w_t times the same, but for
  the cap, which bounds the variance. It is the token's own choice that is made up for: which tokens
  came before and which follow stays as mu has it, so a part of the bias is left. The product over a
  whole sequence would leave none, but its variance grows with the length.

  Args:
    logp_BT: f32[B, T] nats, of the scorer; no gradient flows through it.
    sampled_logp_BT: f32[B, T] nats, of the sampler.
    cap: the largest weight, at least 1; 0 for no weights at all.

  Returns:
    f32[B, T]; all 1 for a cap of 0. Without meaning where no token was sampled.

  Raises:
    AssertionError: at trace time, if shapes disagree.
    ValueError: for another cap.

  Example:
    >>> logp, sampled_logp = jnp.log(jnp.array([[0.3, 0.5]])), jnp.log(jnp.array([[0.4, 0.1]]))
    >>> [round(float(w), 2) for w in importance_weights(logp, sampled_logp, 2.0)[0]]
    [0.75, 2.0]

  Source: truncated importance sampling, as arXiv:2510.26788 compares it for the same purpose.
  """
  chex.assert_equal_shape([logp_BT, sampled_logp_BT])
  if cap and not cap >= 1:
    raise ValueError(
      f'config.objective.importance_cap={cap} must be at least 1, or 0 for no weights'
    )
  if not cap:
    return jnp.ones_like(logp_BT)
  return jnp.minimum(jnp.exp(jax.lax.stop_gradient(logp_BT) - sampled_logp_BT), cap)


def kl_surrogate(
  scores: TokenScores,
  mask_BKT: jax.Array,
  estimator: str = 'exact',
  credit: str = 'turn',
  weight_BT: jax.Array | float = 1.0,
) -> jax.Array:
  """A number for each turn whose expected *gradient* is that of the turn's KL.

  Args:
    scores: from `score_tokens`.
    mask_BKT: bool[B, K, T] tokens sampled in each turn.
    estimator: one of `KL_ESTIMATORS`.
    credit: one of `KL_CREDITS`.
    weight_BT: f32[B, T] from `importance_weights`. They weigh each expectation over the token that
      was sampled there: penalties, and the own part of an estimator that looks at that token alone.
      The own part of 'exact' has none: it sums over the vocabulary, whatever was sampled.

  Returns:
    f32[B, K] nats; its value is not the KL, see `turn_sums` of `scores.kl` for that.

  Raises:
    AssertionError: at trace time, if shapes disagree.
    ValueError: see `check_kl_choice`.

  Source: arXiv:2409.12917, Eqs. 2 to 4; estimators after arXiv:2510.01555 and arXiv:2512.21852.
  """
  check_kl_choice(estimator, credit)
  chex.assert_equal_shape([scores.logp, mask_BKT[:, 0]])
  own_BT, penalty_BT, kl_BT = KL_ESTIMATORS[estimator](scores, weight_BT)
  if credit == 'turn':
    penalty_BT = penalty_BT + weight_BT * after(kl_BT, mask_BKT)
  # The penalty reaches the policy through the choice of the token, as a reward does.
  return turn_sums(own_BT + jax.lax.stop_gradient(penalty_BT) * scores.logp, mask_BKT)


def turn_sums(x_BT: jax.Array, mask_BKT: jax.Array) -> jax.Array:
  """Sums a token quantity over each turn's sampled tokens.

  Args:
    x_BT: f32[B, T].
    mask_BKT: bool[B, K, T].

  Returns:
    f32[B, K], 0 for an empty turn.

  Raises:
    AssertionError: at trace time, if shapes or dtypes disagree.

  Example:
    >>> turn_sums(jnp.array([[1.0, 2.0]]), jnp.array([[[True, False], [False, True]]])).tolist()
    [[1.0, 2.0]]
  """
  chex.assert_type([x_BT, mask_BKT], [jnp.float32, bool])
  chex.assert_equal_shape([x_BT, mask_BKT[:, 0]])
  return masked_sum(jnp.broadcast_to(x_BT[:, None], mask_BKT.shape), mask_BKT, axis=-1)


def policy_loss(
  scores: TokenScores,
  mask_BKT: jax.Array,
  adv_BK: jax.Array,
  kl_weight_K: jax.Array,
  normaliser: float,
  estimator: str = 'exact',
  credit: str = 'turn',
  weight_BT: jax.Array | float = 1.0,
) -> jax.Array:
  """REINFORCE with per-turn advantages and per-turn KL weights.

  Args:
    scores: from `score_tokens`.
    mask_BKT: bool[B, K, T] tokens sampled in each turn.
    adv_BK: f32[B, K] from `advantages`; no gradient flows through it.
    kl_weight_K: f32[K].
    normaliser: what the sum is divided by, once.
    estimator: one of `KL_ESTIMATORS`.
    credit: one of `KL_CREDITS`.
    weight_BT: f32[B, T] from `importance_weights`, of each token's log-prob; for what it does to
      the KL see `kl_surrogate`.

  Returns:
    f32[]; its gradient is minus that of the objective, its value means little.

  Raises:
    AssertionError: at trace time, if shapes disagree.
    ValueError: see `check_kl_choice`.

  Source: arXiv:2409.12917, Eqs. 2 to 4.
  """
  chex.assert_rank([adv_BK, kl_weight_K], [2, 1])
  chex.assert_equal_shape([adv_BK, mask_BKT[:, :, 0]])
  logp_BK = turn_sums(weight_BT * scores.logp, mask_BKT)
  kl_BK = kl_surrogate(scores, mask_BKT, estimator, credit, weight_BT)
  per_turn_BK = -jax.lax.stop_gradient(adv_BK) * logp_BK + kl_weight_K[None] * kl_BK
  return jnp.sum(per_turn_BK) / normaliser
