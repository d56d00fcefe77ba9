"""The KL term's gradient, held against the KL enumerated over all episodes of a tiny policy.

The policy is a table of logits, one row for each prefix of an episode of two turns (up to 3 tokens
and up to 2; token 0 ends a turn), so all 105 episodes can be written down with their
probabilities. The oracle is the definition, `sum_y p(y) (log p(y) - log q(y))`.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.objective.logprobs import score_tokens
from score_jax.objective.loss import KL_CREDITS, KL_ESTIMATORS, kl_surrogate, policy_loss, turn_sums

V = 3  # token 0 ends a turn
TURN_TOKENS = (3, 2)
CHOICES = list(itertools.product(KL_ESTIMATORS, KL_CREDITS))
SLOTS = sum(TURN_TOKENS)


def all_episodes():
  """Every episode: targets_BT, the table's row that predicts each, and masks of both turns."""

  def answers(budget):
    if budget == 0:
      return [()]
    return [(0,)] + [(v, *rest) for v in range(1, V) for rest in answers(budget - 1)]

  rows = {}  # (tokens of turn 1, or None while in it; tokens so far) -> row of the table
  targets, prefixes, masks = [], [], []
  for y1 in answers(TURN_TOKENS[0]):
    for y2 in answers(TURN_TOKENS[1]):
      places = [(None, y1[:t]) for t in range(len(y1))] + [(y1, y2[:t]) for t in range(len(y2))]
      num_holes = SLOTS - len(places)
      targets.append([*y1, *y2] + [0] * num_holes)
      prefixes.append([rows.setdefault(p, len(rows)) for p in places] + [0] * num_holes)
      slots = np.arange(SLOTS)
      is_first = slots < len(y1)
      masks.append([is_first, ~is_first & (slots < len(places))])
  return np.asarray(targets), np.asarray(prefixes), np.asarray(masks), len(rows)


TARGETS_BT, PREFIX_BT, MASK_BKT, NUM_PREFIXES = all_episodes()
POLICY = jnp.asarray(np.random.default_rng(0).normal(size=(NUM_PREFIXES, V)), jnp.float32)
REFERENCE = jnp.asarray(np.random.default_rng(1).normal(size=(NUM_PREFIXES, V)), jnp.float32)


def scores_of(table, rows=slice(None)):
  """The real scorer: hidden states are rows of the table, the head is the identity."""
  prefix_BT, eye = PREFIX_BT[rows], jnp.eye(V)
  targets_BT = jnp.asarray(TARGETS_BT[rows])
  return score_tokens(table[prefix_BT], eye, REFERENCE[prefix_BT], eye, targets_BT, chunk=2)


def probabilities(table):
  """f32[B, K]: probability of each turn of each episode, given what was before it."""
  logp_BT = jax.nn.log_softmax(table)[PREFIX_BT, TARGETS_BT]
  return jnp.exp(jnp.where(MASK_BKT, logp_BT[:, None], 0.0).sum(-1))


@functools.partial(jax.jit, static_argnums=1)
def exact_kl(table, k):
  """KL of turn k's whole sequence; the contexts in which turn 2 begins stay as they are."""
  p_BK, q_BK = probabilities(table), probabilities(REFERENCE)
  before_B = jnp.prod(jax.lax.stop_gradient(p_BK[:, :k]), axis=1)
  # Turn 2 of each episode is summed over: it counts turn 1 with probabilities that sum to 1.
  later_B = jnp.prod(p_BK[:, k + 1 :], axis=1)
  return jnp.sum(before_B * later_B * p_BK[:, k] * jnp.log(p_BK[:, k] / q_BK[:, k]))


EPISODE_P = np.asarray(probabilities(POLICY)).prod(axis=1)


@functools.cache
def expected_gradients():
  """E over the policy's episodes of the gradient of all that is judged here, compiled once.

  Per-turn terms, [K, C, V]: of each (estimator, credit) and ('fault', name). Stage I's KL alone as
  the loss, [C, V]: of each ('anchor', estimator, credit) and ('anchor', fault).
  """
  mask_BKT = jnp.asarray(MASK_BKT)

  def terms(table):
    scores = scores_of(table)
    terms = {choice: kl_surrogate(scores, mask_BKT, *choice) for choice in CHOICES}
    terms |= {('fault', name): fault(scores, mask_BKT) for name, fault in FAULTS.items()}
    anchors = {('anchor', *choice): anchor_of(*choice) for choice in CHOICES}
    anchors |= {('anchor', name): fault for name, fault in ANCHOR_FAULTS.items()}
    for name, loss in anchors.items():  # of each episode alone
      terms[name] = jax.vmap(lambda s, m, f=loss: f(jax.tree.map(lambda x: x[None], s), m[None]))(
        scores, mask_BKT
      )
    return {name: EPISODE_P @ term for name, term in terms.items()}

  return jax.device_get(jax.jit(jax.jacrev(terms))(POLICY))


@functools.cache
def exact_kl_gradient(k):
  """Gradient of `exact_kl` in the policy's table."""
  return np.asarray(jax.jit(jax.grad(lambda table: exact_kl(table, k)))(POLICY))


def test_the_enumeration_is_complete():
  assert len(TARGETS_BT) == 15 * 7  # 1 + 2 (1 + 2 * 3) first answers, 1 + 2 * 3 second ones
  assert NUM_PREFIXES == (1 + 2 + 4) + 15 * (1 + 2)
  assert EPISODE_P.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize('k', [0, 1])
def test_kl_sums_to_the_sequence_kl(k):
  kl_BK = turn_sums(scores_of(POLICY).kl, jnp.asarray(MASK_BKT))
  assert float(EPISODE_P @ kl_BK[:, k]) == pytest.approx(float(exact_kl(POLICY, k)), rel=1e-5)


@pytest.mark.parametrize('k', [0, 1])
@pytest.mark.parametrize('estimator', KL_ESTIMATORS)
def test_turn_credit_is_the_gradient_of_the_sequence_kl(estimator, k):
  got, want = expected_gradients()[estimator, 'turn'][k], exact_kl_gradient(k)
  assert np.abs(want).max() > 0.01
  np.testing.assert_allclose(got, want, atol=2e-6)


def fixed_prefix_gradient(k):
  """Closed form: prefix c is met with probability n_c, and KL_c's gradient is p (log p/q - KL)."""
  p, q = (np.exp(np.asarray(jax.nn.log_softmax(x), float)) for x in (POLICY, REFERENCE))
  kl = (p * np.log(p / q)).sum(-1, keepdims=True)
  met = np.zeros((NUM_PREFIXES, 1))
  for b in range(len(TARGETS_BT)):
    for t in range(SLOTS):
      met[PREFIX_BT[b, t]] += EPISODE_P[b] * MASK_BKT[b, k, t]
  return met * p * (np.log(p / q) - kl)


@pytest.mark.parametrize('k', [0, 1])
@pytest.mark.parametrize('estimator', KL_ESTIMATORS)
def test_token_credit_is_the_gradient_with_prefixes_held(estimator, k):
  got, want = expected_gradients()[estimator, 'token'][k], fixed_prefix_gradient(k)
  np.testing.assert_allclose(got, want, atol=2e-6)
  # It leaves something out: the two kinds of credit are not the same thing.
  assert np.abs(want - exact_kl_gradient(k)).max() > 0.01


@pytest.mark.parametrize('credit', KL_CREDITS)
@pytest.mark.parametrize('estimator', KL_ESTIMATORS)
def test_a_turns_kl_moves_only_that_turn(estimator, credit):
  is_turn1 = np.zeros(NUM_PREFIXES, bool)
  is_turn1[PREFIX_BT[MASK_BKT[:, 0]]] = True
  for k, is_other in enumerate((~is_turn1, is_turn1)):
    gradient = expected_gradients()[estimator, credit][k]
    assert not np.any(gradient[is_other]) and np.all(np.any(gradient[~is_other], axis=1))


def test_k1_as_a_loss_has_no_expected_gradient():
  def k1_of_one_episode(table):
    scores = scores_of(table, rows=slice(0, 1))
    return jnp.sum(scores.logp - scores.ref_logp)

  # A single episode has a gradient, which is why this fault goes unseen.
  assert np.abs(jax.jit(jax.grad(k1_of_one_episode))(POLICY)).max() > 0.1
  np.testing.assert_allclose(expected_gradients()['fault', 'k1 as a loss'], 0, atol=1e-6)


# From here on: Stage I's anchor, and faults of other implementations that the check must catch.


def check_anchor_holds_turn1(gradient):
  """Stage I's KL alone must give turn 1 a gradient, and following it must lower turn 1's KL."""
  turn1 = np.unique(PREFIX_BT[MASK_BKT[:, 0]])
  assert np.abs(gradient[turn1]).max() > 1e-3, 'turn 1 gets no gradient from its own anchor'
  before, after = exact_kl(POLICY, 0), exact_kl(POLICY - 0.5 * gradient, 0)
  assert after < before - 1e-3, f"turn 1's KL went from {before} to {after} nats"


STAGE1_KL = jnp.array([0.25, 0.0])  # beta2 on turn 1, nothing on turn 2


def anchor_of(*choice):
  """Stage I's loss without any reward: from (scores, mask_BKT) of one episode to its KL term."""
  return lambda s, mask_BKT: policy_loss(s, mask_BKT, jnp.zeros((1, 2)), STAGE1_KL, 1.0, *choice)


@pytest.mark.parametrize(('estimator', 'credit'), CHOICES)
def test_stage1_anchor_holds_turn1(estimator, credit):
  check_anchor_holds_turn1(expected_gradients()['anchor', estimator, credit])


def anchor_on_turn2(scores, mask_BKT):
  """Turn 1's KL as a penalty in the reward that multiplies only turn 2's log-probs."""
  kl_BK, logp_BK = (turn_sums(x, mask_BKT) for x in (scores.kl, scores.logp))
  return STAGE1_KL[0] * jnp.sum(jax.lax.stop_gradient(kl_BK[:, 0]) * logp_BK[:, 1])


def anchor_is_a_number(scores, mask_BKT):
  """The KL is added to the loss as a plain number."""
  kl_BK = jax.lax.stop_gradient(turn_sums(scores.kl, mask_BKT))
  return jnp.sum(STAGE1_KL[None] * kl_BK) + 0.0 * jnp.sum(scores.logp)


def anchor_is_k1(scores, mask_BKT):
  """log pi - log pi_ref is minimised as it stands."""
  k1_BK = turn_sums(scores.logp - scores.ref_logp, mask_BKT)
  return jnp.sum(STAGE1_KL[None] * k1_BK)


def anchor_pushes_away(scores, mask_BKT):
  """The sign is wrong."""
  return policy_loss(scores, mask_BKT, jnp.zeros((1, 2)), -STAGE1_KL, 1.0)


ANCHOR_FAULTS = {
  f.__name__: f for f in (anchor_on_turn2, anchor_is_a_number, anchor_is_k1, anchor_pushes_away)
}


@pytest.mark.parametrize('fault', ANCHOR_FAULTS)
def test_stage1_anchor_check_can_fail(fault):
  is_up = fault == 'anchor_pushes_away'
  message = "turn 1's KL went from" if is_up else 'no gradient from its own anchor'
  with pytest.raises(AssertionError, match=message):
    check_anchor_holds_turn1(expected_gradients()['anchor', fault])


# The same gradient by finite differences of a KL in plain NumPy, and faults that it must catch.


@functools.cache
def finite_differences(k):
  """Slopes of turn k's KL in float64, with what leads up to the turn held as the policy has it."""

  def logp_BT(table):
    logp = table - np.log(np.exp(table).sum(-1, keepdims=True))
    return logp[PREFIX_BT, TARGETS_BT]

  mask_BT = MASK_BKT[:, k]
  before_B = np.where(MASK_BKT[:, :k].any(1), logp_BT(np.asarray(POLICY, float)), 0).sum(1)
  ref_B = np.where(mask_BT, logp_BT(np.asarray(REFERENCE, float)), 0).sum(1)
  # Each answer of the turn once: what comes after it would only repeat it.
  first_of = {}
  for b in range(len(TARGETS_BT)):
    end = np.flatnonzero(mask_BT[b])[-1] + 1
    first_of.setdefault((tuple(PREFIX_BT[b, :end]), tuple(TARGETS_BT[b, :end])), b)
  rows = list(first_of.values())

  def kl(table):
    logp_B = np.where(mask_BT, logp_BT(table), 0).sum(1)
    return sum(np.exp(before_B[b] + logp_B[b]) * (logp_B[b] - ref_B[b]) for b in rows)

  slopes, table = np.zeros((NUM_PREFIXES, V)), np.asarray(POLICY, float)
  for index in np.ndindex(slopes.shape):
    step = np.zeros_like(table)
    step[index] = 1e-5
    slopes[index] = (kl(table + step) - kl(table - step)) / 2e-5
  return slopes


def check_finite_differences(gradient_KCV):
  """The expected gradient of a per-turn KL term must be the slope of the turn's KL."""
  for k in (0, 1):
    want = finite_differences(k)
    np.testing.assert_allclose(gradient_KCV[k], want, atol=1e-5, err_msg=f'turn {k + 1}')


@pytest.mark.parametrize('estimator', KL_ESTIMATORS)
def test_gradient_against_finite_differences(estimator):
  assert min(np.abs(finite_differences(k)).max() for k in (0, 1)) > 0.01
  check_finite_differences(expected_gradients()[estimator, 'turn'])


def k3(scores):
  log_ratio_BT = scores.ref_logp - scores.logp
  return jnp.exp(log_ratio_BT) - 1.0 - log_ratio_BT


FAULTS = {
  'k1 as a loss': lambda s, mask: turn_sums(s.logp - s.ref_logp, mask),
  'k3 as a loss': lambda s, mask: turn_sums(k3(s), mask),
  'detached': lambda s, mask: turn_sums(jax.lax.stop_gradient(s.kl) + 0.0 * s.logp, mask),
  'later tokens left out': lambda s, mask: kl_surrogate(s, mask, 'exact', 'token'),
  'mean over tokens': lambda s, mask: kl_surrogate(s, mask) / mask.sum(-1),
  'turns in the wrong order': lambda s, mask: kl_surrogate(s, mask)[:, ::-1],
}


@pytest.mark.parametrize('fault', FAULTS)
def test_finite_differences_can_fail(fault):
  with pytest.raises(AssertionError, match='turn [12]'):
    check_finite_differences(expected_gradients()['fault', fault])
