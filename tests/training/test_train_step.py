"""The update: parts add up to the whole, each term moves what it should and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_models import random_params, tiny_decoder

from score_jax.core.types import TrainState
from score_jax.model.decoder import Decoder
from score_jax.objective.loss import policy_loss
from score_jax.objective.stages import Stage, StageArrays, stage1, stage2
from score_jax.rollout.keys import episode_keys
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.multi_turn import rollout
from score_jax.training.packing import pack_episodes
from score_jax.training.train_step import (
  StepOptions,
  apply_gradient,
  forward,
  make_train_step,
)

CONFIG = tiny_decoder()
DECODER = Decoder(CONFIG)
SPEC = RolloutSpec(
  prompt_tokens=3, turn_tokens=(3, 4), followup_ids=((9, 10),), end_of_turn_ids=(1, 2)
)
G, LENGTH = 4, 13
PROMPT = np.repeat(np.array([[4, 7, 0], [3, 8, 5]], np.int32), G, axis=0)
IS_PROMPT = np.repeat(np.array([[1, 1, 0], [1, 1, 1]], bool), G, axis=0)
REWARD = np.array([[0, 1], [1, 0], [1, 1], [0, 0], [0, 1], [0, 0], [1, 1], [0, 1]], np.float32)
LEARNING_RATE = 0.5
OPTIONS = StepOptions(samples_per_problem=G, chunk=5)


@pytest.fixture(scope='module')
def base():
  return random_params(CONFIG, 0)


@pytest.fixture(scope='module')
def start():
  """The policy; it lies away from the reference, so that there is a KL to see."""
  return random_params(CONFIG, 7)


def sample(params, step=0):
  keys = episode_keys(0, step, np.repeat([0, 1], G), np.tile(np.arange(G), 2))
  return jax.device_get(rollout(DECODER, SPEC, params, PROMPT, IS_PROMPT, keys, 1.0))


@pytest.fixture(scope='module')
def episode(start):
  return sample(start)


def make_step(parts, options=OPTIONS, decoder=DECODER):
  """An update in parts, of episodes and rewards as they are sampled."""
  step = make_train_step(
    policy=lambda trainable, frozen, rows: forward(decoder, trainable, rows),
    reference=lambda frozen, rows: forward(decoder, frozen, rows),
    optimizer=optax.sgd(LEARNING_RATE),
    options=options,
  )

  def packed(state, frozen, episode, reward, stage):
    # In parts, rows hold several episodes.
    slots = LENGTH if parts == 1 else 3 * LENGTH
    batch = pack_episodes(episode, reward, slots, len(reward) // parts)
    return step(state, frozen, batch, stage)

  return packed


@pytest.fixture(scope='module')
def steps():
  """The update by its number of parts, compiled when it is first asked for."""
  return {parts: make_step(parts) for parts in (1, 2, 4)}


def state_of(params):
  params = jax.tree.map(jnp.array, params)  # a copy: the step takes it away
  return TrainState(jnp.int32(3), params, optax.sgd(LEARNING_RATE).init(params))


def update(step, start, base, episode, reward, stage):
  """One update from `start`: the new state and the metrics, on the host."""
  return jax.device_get(step(state_of(start), base, episode, reward, StageArrays.of(stage)))


def moved(state, start):
  """How far an update went, by parameter: the gradient times minus the learning rate."""
  return jax.tree.map(lambda new, old: new - old, state.trainable, start)


def largest(tree):
  return max(float(np.abs(x).max()) for x in jax.tree.leaves(tree))


def assert_trees_close(a, b, atol):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol), a, b)


def plain_rows(episode):
  """Rows without holes, by NumPy: tokens, and for each turn which of them were sampled."""
  B, num = episode.tokens.shape[0], LENGTH
  tokens, masks = np.zeros((B, num), np.int32), np.zeros((B, 2, num), bool)
  for b in range(B):
    slots = np.flatnonzero(episode.is_token[b])
    tokens[b, : len(slots)] = episode.tokens[b, slots]
    for k in range(2):
      is_mine = (episode.turn[b] == k + 1) & episode.is_sampled[b]
      masks[b, k, : len(slots)] = is_mine[slots]
  return tokens, masks


@jax.jit
def plain_logp(params, tokens):
  """log pi over the vocabulary before every token but the first, under a triangular mask."""
  B, T = tokens.shape
  positions = jnp.broadcast_to(jnp.arange(T), (B, T))
  mask = jnp.broadcast_to(jnp.tril(jnp.ones((T, T), bool)), (B, T, T))
  hidden, head, _ = DECODER.apply({'params': params}, tokens, positions, mask)
  return jax.nn.log_softmax((hidden @ head)[:, :-1])


def leave_one_out(shaped_B):
  """Each episode's shaped reward less the mean of its problem's others."""
  out = np.zeros(len(shaped_B))
  for b in range(len(shaped_B)):
    first = b // G * G
    out[b] = shaped_B[b] - np.mean([shaped_B[j] for j in range(first, first + G) if j != b])
  return out


# Parts and whole.


def check_parts_add_up(make, parts, start, base, episode):
  """An update in parts must be the update of the whole batch, and report the same.

  Args:
    make: from a number of micro-batches to a step.
    parts: that number.
  """
  stage = stage2(10.0, 0.1)
  whole, metrics = update(make(1), start, base, episode, REWARD, stage)
  state, parts_metrics = update(make(parts), start, base, episode, REWARD, stage)
  distance = largest(moved(whole, start))
  assert distance > 1e-2
  assert_trees_close(state.trainable, whole.trainable, atol=1e-5 * max(distance, 1.0))
  assert metrics.keys() == parts_metrics.keys()
  for name in metrics.keys() - {'train/slots_per_token'}:
    np.testing.assert_allclose(parts_metrics[name], metrics[name], rtol=1e-4, atol=1e-5)


# Of two rows each, so that a problem's samples come into different parts.
@pytest.mark.parametrize('parts', [pytest.param(2, marks=pytest.mark.slow), 4])
def test_micro_batches_add_up(steps, start, base, episode, parts):
  check_parts_add_up(steps.get, parts, start, base, episode)


def mean_over_tokens_of_a_part(scores, mask_BKT, adv_BK, kl_weight_K, normaliser, *choice):
  """Each part's loss is averaged over its own tokens, and the parts are averaged."""
  num_parts = normaliser / len(adv_BK)
  return policy_loss(scores, mask_BKT, adv_BK, kl_weight_K, mask_BKT.sum() * num_parts, *choice)


def mean_over_rows_of_a_part(scores, mask_BKT, adv_BK, kl_weight_K, normaliser, *choice):
  """Each part's loss is averaged over its own rows, and the parts are added."""
  return policy_loss(scores, mask_BKT, adv_BK, kl_weight_K, len(adv_BK), *choice)


@pytest.mark.parametrize('fault', [mean_over_tokens_of_a_part, mean_over_rows_of_a_part])
def test_check_of_parts_can_fail(monkeypatch, start, base, episode, fault):
  monkeypatch.setattr('score_jax.training.train_step.policy_loss', fault)
  with pytest.raises(AssertionError, match='Not equal to tolerance'):
    check_parts_add_up(make_step, 4, start, base, episode)


@pytest.mark.parametrize('parts', [1, 4])
def test_nan_changes_nothing(steps, start, base, episode, parts):
  reward = REWARD.copy()
  reward[5, 1] = np.nan
  state, metrics = update(steps[parts], start, base, episode, reward, stage2(10.0, 0.1))
  assert metrics['train/is_finite'] == 0
  assert state.step == 3
  jax.tree.map(np.testing.assert_array_equal, state.trainable, start)
  state, metrics = update(steps[parts], start, base, episode, REWARD, stage2(10.0, 0.1))
  assert metrics['train/is_finite'] == 1 and state.step == 4


@pytest.mark.filterwarnings('ignore:overflow encountered in cast:RuntimeWarning')
@pytest.mark.parametrize(
  ('rate', 'gradient', 'is_finite', 'is_left'),
  [
    (0.1, 2.0, True, True),
    (3e38, 2.0, True, True),  # as far as they can go
    (1e39, 2.0, False, False),
    (0.1, 1e25, False, True),  # its square overflows: not applied
  ],
)
def test_what_an_update_leaves_is_looked_at(rate, gradient, is_finite, is_left):
  optimizer, params = optax.adam(rate), {'w': jnp.ones(3), 'v': jnp.zeros((2, 2))}
  state = TrainState(jnp.int32(0), params, optimizer.init(params))
  grads = jax.tree.map(jnp.zeros_like, params) | {'w': jnp.array([0.0, gradient, 0.0])}
  new, metrics = jax.jit(apply_gradient, static_argnums=(0,))(optimizer, state, grads, 1.0)
  assert bool(metrics['train/is_finite']) == is_finite
  assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(new)) == is_left
  assert int(new.step) == (gradient < 1e19)


def test_state_is_donated(steps, start, base, episode):
  state = state_of(start)
  steps[1](state, base, episode, REWARD, StageArrays.of(stage2(10.0, 0.1)))
  assert all(x.is_deleted() for x in jax.tree.leaves(state.trainable))


# What each term moves.


def test_bonus_rewards_turn_2_alone(steps, start, base, episode):
  """With the bonus and nothing else, the gradient is REINFORCE on turn 2's tokens."""
  stage = Stage('bonus', (0.0, 0.0), (0.0, 0.0), (0.0, 10.0))
  state, _ = update(steps[1], start, base, episode, REWARD, stage)
  tokens, masks = plain_rows(episode)
  adv_B = leave_one_out(10.0 * (REWARD[:, 1] - REWARD[:, 0]))

  def plain_loss(params, mask_BT):
    logp = jnp.take_along_axis(plain_logp(params, tokens), tokens[:, 1:, None], axis=-1)[..., 0]
    weight_BT = (adv_B[:, None] * mask_BT[:, 1:]).astype(np.float32)
    return -jnp.sum(weight_BT * logp) / len(tokens)

  gradient = jax.jit(jax.grad(plain_loss))
  grads = gradient(start, masks[:, 1])
  want = jax.tree.map(lambda g: -LEARNING_RATE * g, grads)
  assert_trees_close(moved(state, start), want, atol=1e-4)
  # The check can fail: turn 1's tokens, rewarded alike, would move the parameters elsewhere.
  leaked = gradient(start, masks.any(axis=1))
  assert largest(jax.tree.map(lambda a, b: a - b, leaked, grads)) > 1e-2
  # And where turn 2 has no sampled token, the bonus moves nothing.
  first_only = episode.replace(is_sampled=episode.is_sampled & (episode.turn == 1))
  state, _ = update(steps[1], start, base, first_only, REWARD, stage)
  jax.tree.map(np.testing.assert_array_equal, state.trainable, start)


def test_anchor_moves_turn_1(steps, start, base, episode):
  """Stage I's strong KL has a gradient of its own on turn 1's tokens, and only on those."""
  anchor = stage1(beta1=0.0, beta2=1.0)
  equal = np.ones_like(REWARD)  # no advantages
  first_only = episode.replace(is_sampled=episode.is_sampled & (episode.turn == 1))
  second_only = episode.replace(is_sampled=episode.is_sampled & (episode.turn == 2))
  whole, _ = update(steps[1], start, base, episode, equal, anchor)
  first, _ = update(steps[1], start, base, first_only, equal, anchor)
  second, _ = update(steps[1], start, base, second_only, equal, anchor)
  assert largest(moved(whole, start)) > 1e-3
  assert_trees_close(first.trainable, whole.trainable, atol=1e-6)
  assert_trees_close(second.trainable, start, atol=1e-6)  # equal rewards cancel up to rounding


def test_anchor_lowers_kl(steps, start, base):
  """A few updates with constant rewards bring turn 1 back to the reference."""
  params, kl = start, []
  for i in range(6):
    state, metrics = update(
      steps[1], params, base, sample(params, i), np.ones_like(REWARD), stage1(0.0, 0.2)
    )
    params = state.trainable
    kl.append(metrics['train/kl_t1_nats'])
  assert kl[0] > 0.5
  assert np.mean(kl[-2:]) < 0.6 * kl[0], kl


def test_equal_policies_and_rewards_do_not_move(steps, start, episode):
  state, metrics = update(steps[1], start, start, episode, np.ones_like(REWARD), stage1(0.1, 1.0))
  assert largest(moved(state, start)) < 1e-5
  assert abs(metrics['train/kl_t1_nats']) < 1e-5 and abs(metrics['train/kl_t2_nats']) < 1e-5


# What is reported.


def test_metrics_of_a_step(steps, start, base, episode):
  """KL, entropy, lengths and the gap to the sampler, against NumPy over plain rows."""
  _, metrics = update(steps[1], start, base, episode, REWARD, stage2(10.0, 0.1))
  tokens, masks = plain_rows(episode)
  logp, ref_logp = (np.asarray(plain_logp(p, tokens), np.float64) for p in (start, base))
  kl_BT = (np.exp(logp) * (logp - ref_logp)).sum(axis=-1)
  entropy_BT = -(np.exp(logp) * logp).sum(axis=-1)
  for k in range(2):
    mask = masks[:, k, 1:]
    per_row = (entropy_BT * mask).sum(axis=1) / mask.sum(axis=1)
    want = {
      f'train/kl_t{k + 1}_nats': (kl_BT * mask).sum() / 8,
      f'train/entropy_t{k + 1}_nats': per_row.mean(),
      f'train/length_t{k + 1}_tokens': mask.sum() / 8,
      f'train/truncated_t{k + 1}': episode.is_truncated[:, k].mean(),
      f'train/reward_t{k + 1}': REWARD[:, k].mean(),
    }
    for name, value in want.items():
      np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)
  assert metrics['train/logp_gap_max_nats'] < 1e-4
  assert metrics['train/update_norm'] == pytest.approx(
    LEARNING_RATE * metrics['train/grad_norm'], rel=1e-4
  )
  # Other parameters than those that sampled are seen.
  _, metrics = update(steps[1], base, base, episode, REWARD, stage2(10.0, 0.1))
  assert metrics['train/logp_gap_max_nats'] > 0.1
  assert metrics['train/logp_gap_mean_nats'] > 0.01
