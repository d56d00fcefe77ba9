"""What importance weights do to the bias of another sampler, by enumerating a tiny policy.

Policy, sampler and reference are tables of logits, a row for each prefix; token 0 ends an answer of
up to three tokens, so its 15 answers can be written down. The oracle is the objective itself,
`sum_y p(y) (R(y) - w log p(y)/q(y))`, and its gradient.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.objective.logprobs import score_tokens
from score_jax.objective.loss import KL_ESTIMATORS, importance_weights, policy_loss

V, KL_WEIGHT, NO_CAP = 3, 0.4, 1e9


def all_answers(budget):
  """Every answer: targets_BT, the table's row that predicts each token, and which are tokens."""

  def answers(budget):
    if budget == 0:
      return [()]
    return [(0,)] + [(v, *rest) for v in range(1, V) for rest in answers(budget - 1)]

  rows, answers = {}, answers(budget)
  pad = [(0,) * (budget - len(y)) for y in answers]
  prefixes = [[rows.setdefault(y[:t], len(rows)) for t in range(len(y))] for y in answers]
  targets_BT = [y + zeros for y, zeros in zip(answers, pad, strict=True)]
  prefix_BT = [[*y, *zeros] for y, zeros in zip(prefixes, pad, strict=True)]
  is_token_BT = np.arange(budget) < np.array([len(y) for y in answers])[:, None]
  return np.array(targets_BT), np.array(prefix_BT), is_token_BT


class Answers:
  """All answers within a budget, three tables, and a reward for each answer."""

  def __init__(self, budget):
    self.targets, self.prefix, self.is_token = all_answers(budget)
    rng, shape = np.random.default_rng(budget), (self.prefix.max() + 1, V)
    self.policy, self.reference = rng.normal(size=(2, *shape)).astype(np.float32)
    self.reward = rng.normal(size=len(self.targets)).astype(np.float32)

  def logp(self, table):
    """f32[B, T]."""
    return jax.nn.log_softmax(jnp.asarray(table))[self.prefix, self.targets]

  def p(self, table):
    """f32[B]: the probability of each answer."""
    return jnp.exp(jnp.where(self.is_token, self.logp(table), 0).sum(axis=1))

  @functools.cached_property
  def exact(self):
    """The gradient of minus the objective."""

    def objective(table):
      p_B, q_B = self.p(table), self.p(self.reference)
      return -(p_B * (self.reward - KL_WEIGHT * jnp.log(p_B / q_B))).sum()

    return np.asarray(jax.grad(objective)(self.policy))

  @functools.cached_property
  def gradients(self):
    """From a sampler's table, as compiled for an estimator and a cap, to the expected gradient."""

    @functools.partial(jax.jit, static_argnums=(1, 2))
    def expected(sampler, estimator, cap):
      sampled_logp_BT, p_B = self.logp(sampler), self.p(sampler)
      eye, mask_BKT = jnp.eye(V), jnp.asarray(self.is_token)[:, None]

      def loss(table):
        hiddens = (x[self.prefix] for x in (table, jnp.asarray(self.reference)))
        heads_and_hiddens = (next(hiddens), eye, next(hiddens), eye)
        scores = score_tokens(*heads_and_hiddens, jnp.asarray(self.targets))
        weight_BT = importance_weights(scores.logp, sampled_logp_BT, cap)
        one = jax.vmap(
          lambda s, m, r, w: policy_loss(
            jax.tree.map(lambda x: x[None], s),
            m[None],
            r[None, None],
            jnp.array([KL_WEIGHT]),
            1.0,
            estimator,
            'turn',
            w[None],
          )
        )
        return (p_B * one(scores, mask_BKT, jnp.asarray(self.reward), weight_BT)).sum()

      return jax.grad(loss)(jnp.asarray(self.policy))

    return expected

  def bias(self, sampler, estimator, cap):
    """How far the expected gradient is from the exact one: the Euclidean distance."""
    return np.linalg.norm(np.asarray(self.gradients(sampler, estimator, cap)) - self.exact)


ONE_TOKEN, THREE_TOKENS = Answers(1), Answers(3)


def sampler_near(answers, seed, noise):
  """The policy's table with noise, as of another type or kernel."""
  return answers.policy + noise * np.random.default_rng(seed).normal(size=answers.policy.shape)


@pytest.mark.parametrize('estimator', KL_ESTIMATORS)
def test_a_single_token_has_no_bias_left(estimator):
  sampler = sampler_near(ONE_TOKEN, 3, 0.5)
  assert ONE_TOKEN.bias(ONE_TOKEN.policy, estimator, 0.0) < 1e-5  # on-policy: none to begin with
  assert ONE_TOKEN.bias(sampler, estimator, 0.0) > 0.05
  assert ONE_TOKEN.bias(sampler, estimator, NO_CAP) < 1e-5


@pytest.mark.parametrize('estimator', KL_ESTIMATORS)
def test_answers_have_less_bias(estimator):
  """In the mean over samplers 0.58 (exact) and 0.38 (k1, k2) of what it is without weights."""
  samplers = np.stack([sampler_near(THREE_TOKENS, seed, 0.2) for seed in range(64)])

  def biases(cap):
    of_all = jax.vmap(lambda sampler: THREE_TOKENS.gradients(sampler, estimator, cap))
    return np.linalg.norm(np.asarray(of_all(samplers)) - THREE_TOKENS.exact, axis=(1, 2))

  plain, weighed = biases(0.0), biases(2.0)
  assert weighed.mean() < (0.65 if estimator == 'exact' else 0.45) * plain.mean()
  assert np.mean(weighed < plain) > 0.75
  assert weighed.mean() > 0.1 * plain.mean()  # a token's own weight does not take all


def test_the_cap_by_hand():
  """REINFORCE of one token: the cap takes min(pi, cap mu) in place of pi."""
  sampler = sampler_near(ONE_TOKEN, 4, 2.0)
  pi, mu = (np.asarray(ONE_TOKEN.p(table), float) for table in (ONE_TOKEN.policy, sampler))
  assert (pi / mu).max() > 2 > 1 > (pi / mu).min()
  logp, ref = (
    np.asarray(ONE_TOKEN.logp(x), float)[:, 0] for x in (ONE_TOKEN.policy, ONE_TOKEN.reference)
  )
  for cap in (1.0, 1.5, 2.0):
    share = np.minimum(pi, cap * mu)
    credit = share * (ONE_TOKEN.reward - KL_WEIGHT * (logp - ref))
    want = -(credit - pi * credit.sum())  # sum_a c_a (onehot_a - pi)
    got = np.asarray(ONE_TOKEN.gradients(sampler, 'k1_reward', cap))[0]
    np.testing.assert_allclose(got[ONE_TOKEN.targets[:, 0]], want, atol=1e-5)


def test_weights_by_hand_and_without_gradient():
  logp, sampled_logp = jnp.log(jnp.array([[0.5, 0.2, 0.9]])), jnp.log(jnp.array([[0.25, 0.4, 0.1]]))
  np.testing.assert_allclose(importance_weights(logp, sampled_logp, 3.0), [[2.0, 0.5, 3.0]])
  np.testing.assert_array_equal(importance_weights(logp, sampled_logp, 0.0), np.ones((1, 3)))
  gradient = jax.grad(lambda x: importance_weights(x, sampled_logp, 3.0).sum())(logp)
  np.testing.assert_array_equal(gradient, np.zeros((1, 3)))
  # A token that the sampler held for all but impossible overflows nothing.
  assert importance_weights(jnp.zeros((1, 1)), jnp.full((1, 1), -1e4), 2.0)[0, 0] == 2.0


@pytest.mark.parametrize('cap', [0.5, -1.0, float('nan')])
def test_caps_that_are_refused(cap):
  with pytest.raises(ValueError, match=r'importance_cap=.* must be at least 1, or 0'):
    importance_weights(jnp.zeros((1, 1)), jnp.zeros((1, 1)), cap)
