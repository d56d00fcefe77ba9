"""The loss on traces, its gradient and its update, against loops and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_models import random_params, tiny_decoder

from score_jax.core.types import TrainState
from score_jax.model.decoder import Decoder
from score_jax.training.supervised import cross_entropy, make_supervised_step
from score_jax.training.traces import Sample, Trace, batch_traces
from score_jax.training.train_step import forward

DECODER = Decoder(tiny_decoder())


@pytest.fixture(scope='module')
def params():
  return random_params(DECODER.config, 1)


@pytest.fixture(scope='module')
def batch():
  """Twelve traces of many lengths, some of whose first answers were cut; two rows of padding."""
  rng = np.random.default_rng(5)

  def ids(longest):
    return rng.integers(3, 11, rng.integers(1, longest + 1)).tolist()

  def trace(i):
    is_cut = bool(rng.integers(2))
    first, second = [*ids(4), *([] if is_cut else [1])], [*ids(5), 1]
    return Trace(Sample(i, ids(5), (first, second), (is_cut, False), (False, True)), second)

  traces = [trace(i) for i in range(12)]
  assert len({t.sample.is_truncated[0] for t in traces}) == 2
  return batch_traces(traces, (9, 3, 10), 1, num_rows=14, length_bucket=20)


def policy(trainable, frozen, traces):
  return forward(DECODER, trainable, traces)


loss_and_grads = jax.jit(
  lambda params, traces: jax.value_and_grad(
    lambda params: cross_entropy(policy, params, {}, traces, 5), has_aux=True
  )(params)
)


@jax.jit
def run(params, tokens_BT, positions_BT, mask_BTT):
  """Hidden states and head, with a mask that the test makes."""
  return DECODER.apply({'params': params}, tokens_BT, positions_BT, mask_BTT)[:2]


def loss_by_hand(params, batch):
  """Loss, accuracy and number of tokens: a loop over turn 2, under a triangular mask."""
  rows, slots = batch.tokens.shape
  positions = np.tile(np.arange(slots), (rows, 1))
  mask = np.tile(np.tril(np.ones((slots, slots), bool)), (rows, 1, 1))
  hidden, head = (np.float64(x) for x in run(params, batch.tokens, positions, mask))
  nll, hits = [], []
  for b, t in np.argwhere(batch.is_target):
    z, target = hidden[b, t - 1] @ head, batch.tokens[b, t]
    nll.append(np.log(np.exp(z).sum()) - z[target])
    hits.append(z.argmax() == target)
  return np.mean(nll), np.mean(hits), len(nll)


def test_cross_entropy_is_a_loop_over_the_second_answers(params, batch):
  want, accuracy, count = loss_by_hand(params, batch)
  (loss, metrics), _ = loss_and_grads(params, batch)
  assert 1 < want < 10 and 0 < accuracy < 1 and count == batch.is_target.sum()
  assert float(loss) == pytest.approx(want, abs=1e-5)
  assert {k: float(v) for k, v in metrics.items()} == pytest.approx(
    {'train/loss_nats': want, 'train/token_accuracy': accuracy, 'train/target_tokens': count},
    abs=1e-5,
  )


def first_answer_too(batch):
  """Everything but the prompt's first token is trained."""
  return batch.replace(is_target=batch.is_token & (np.arange(batch.tokens.shape[1]) > 0))


def padding_too(batch):
  return batch.replace(is_target=batch.is_target | ~batch.is_token)


def one_token_late(batch):
  return batch.replace(is_target=np.roll(batch.is_target, 1, axis=1) & batch.is_token)


@pytest.mark.parametrize('fault', [first_answer_too, padding_too, one_token_late])
def test_other_targets_are_seen(params, batch, fault):
  want, _, _ = loss_by_hand(params, batch)
  (loss, _), _ = loss_and_grads(params, fault(batch))
  assert abs(float(loss) - want) > 1e-3


def test_gradient_against_finite_differences(params, batch):
  """Of each parameter, at the entry where it is steepest."""
  _, grads = loss_and_grads(params, batch)
  leaves, tree = jax.tree.flatten(params)
  step = 4e-3
  for i, grad in enumerate(map(np.asarray, jax.tree.leaves(grads))):
    place = np.unravel_index(np.abs(grad).argmax(), grad.shape)

    def loss_at(shift, i=i, place=place):
      moved = leaves[i].copy()
      moved[place] += shift
      changed = jax.tree.unflatten(tree, [*leaves[:i], moved, *leaves[i + 1 :]])
      return float(loss_and_grads(changed, batch)[0][0])

    slope = (loss_at(step) - loss_at(-step)) / (2 * step)
    assert abs(grad[place]) > 1e-2
    assert slope == pytest.approx(grad[place], rel=2e-2, abs=2e-4)


def test_padding_teaches_nothing(params, batch):
  """Neither rows of padding nor what stands behind a row changes loss or gradient."""
  want = loss_and_grads(params, batch)
  noise = np.random.default_rng(0).integers(0, 11, batch.tokens.shape)
  noisy = batch.replace(tokens=np.where(batch.is_token, batch.tokens, noise).astype(np.int32))
  trimmed = jax.tree.map(lambda x: np.pad(x[:12], ((0, 0), (0, 3))), batch)
  for other in (noisy, trimmed):
    found = loss_and_grads(params, other)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), found, want)


def test_updates_lower_the_loss_and_one_that_is_not_finite_changes_nothing(params, batch):
  optimizer = optax.adam(1e-2)
  step = make_supervised_step(policy, optimizer, chunk=5)
  state = TrainState(jnp.int32(0), jax.tree.map(jnp.array, params), optimizer.init(params))
  losses = []
  for _ in range(20):
    state, metrics = step(state, {}, batch)
    losses.append(float(metrics['train/loss_nats']))
    assert metrics['train/is_finite'] == 1 and metrics['train/grad_norm'] > 0
  assert losses[0] == pytest.approx(loss_by_hand(params, batch)[0], abs=1e-5)
  assert losses[-1] < 0.6 * losses[0] and int(state.step) == 20
  spoilt = jax.tree.map(jnp.array, state.trainable)
  spoilt['final_norm']['scale'] = spoilt['final_norm']['scale'].at[0].set(jnp.nan)
  before = jax.device_get(state.replace(trainable=spoilt))
  after, metrics = step(state.replace(trainable=spoilt), {}, batch)
  assert metrics['train/is_finite'] == 0
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(after), before)


@pytest.mark.filterwarnings('ignore:overflow encountered in cast:RuntimeWarning')
def test_an_update_that_leaves_what_is_not_finite_is_told_of(params, batch):
  optimizer = optax.adam(1e39)
  step = make_supervised_step(policy, optimizer, chunk=5)
  state = TrainState(jnp.int32(0), jax.tree.map(jnp.array, params), optimizer.init(params))
  state, metrics = step(state, {}, batch)
  assert np.isfinite([metrics['train/loss_nats'], metrics['train/grad_norm']]).all()
  assert metrics['train/is_finite'] == 0
  assert not all(np.isfinite(x).all() for x in jax.tree.leaves(state.trainable))
