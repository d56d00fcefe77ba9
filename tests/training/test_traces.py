"""Traces to imitate: which are chosen, how they are laid out, and the loss on them."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from score_jax.core.logits import CappedHead
from score_jax.core.types import TrainState, compact
from score_jax.model.decoder import Decoder, DecoderConfig, abstract_params
from score_jax.objective.logprobs import token_logp
from score_jax.rollout.keys import episode_keys
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.multi_turn import rollout
from score_jax.rollout.text import fill_slots
from score_jax.training.supervised import cross_entropy, make_supervised_step
from score_jax.training.traces import Sample, Trace, batch_traces, build_traces, read_samples
from score_jax.training.train_step import forward

EOT = 1
FOLLOWUP = (9, 3, 10)
SIZES = dict(vocab_size=11, num_layers=2, embed_dim=16, mlp_dim=24, num_heads=2, num_kv_heads=1)
DECODER = Decoder(DecoderConfig(**SIZES, head_dim=8))
SPEC = RolloutSpec(
  prompt_tokens=5, turn_tokens=(4, 6), followup_ids=(FOLLOWUP,), end_of_turn_ids=(EOT, 2)
)

# Which traces are made.


def sample(problem_id, first, second):
  """Answers of one token each: (token, whether it is right)."""
  answers, is_right = zip(first, second, strict=True)
  return Sample(problem_id, [0], tuple([x] for x in answers), (False, False), is_right)


R, W = True, False
WR, RR = sample(7, (11, W), (12, R)), sample(7, (21, R), (22, R))
RW, WW = sample(7, (31, R), (32, W)), sample(7, (41, W), (42, W))
NEVER = sample(9, (51, W), (52, W))
RW_3, WW_3 = sample(3, (61, R), (62, W)), sample(3, (71, W), (72, W))
SAMPLES = [WR, NEVER, RR, RW_3, RW, WW, WW_3]
RIGHT_7 = {12, 21, 22, 31}  # at either turn


def pairs(traces):
  return [(t.sample, *t.second_ids) for t in traces]


def test_star_takes_episodes_that_end_right():
  assert pairs(build_traces(iter(SAMPLES), 'star', False, 0)) == [(WR, 12)]
  assert pairs(build_traces(iter(SAMPLES), 'star', True, 0)) == [(WR, 12), (RR, 22)]


def test_pair_sft_takes_right_answers_of_the_same_problem():
  drawn, drawn_plus = collections.Counter(), collections.Counter()
  for seed in range(400):
    found = pairs(build_traces(iter(SAMPLES), 'pair_sft', False, seed))
    assert [s for s, _ in found] == [WR, WW, WW_3]  # NEVER has no right answer to be paired with
    assert found[2] == (WW_3, 61)
    drawn.update(second for _, second in found[:2])
    found = pairs(build_traces(iter(SAMPLES), 'pair_sft', True, seed))
    assert [s for s, _ in found] == [WR, RR, RW_3, RW, WW, WW_3]
    assert [second for s, second in found if s.problem_id == 3] == [61, 61]
    drawn_plus.update(second for s, second in found if s.problem_id == 7)
  for counts, total in ((drawn, 800), (drawn_plus, 1600)):
    assert counts.keys() == RIGHT_7 and counts.total() == total
    # Each a quarter of the time: within five standard errors.
    error = (total * 0.25 * 0.75) ** 0.5
    assert all(abs(n - total / 4) < 5 * error for n in counts.values()), counts


def test_a_problems_pairs_depend_on_its_own_samples_alone():
  def of(problem_id, samples, seed=4):
    found = build_traces(samples, 'pair_sft', True, seed)
    return [x for x in pairs(found) if x[0].problem_id == problem_id]

  sevens = [WR, RR, RW, WW] * 5
  alone = of(7, sevens)
  assert len(alone) == 20
  assert of(7, [NEVER, RW_3, *sevens, WW_3]) == alone
  assert of(7, [x for s in sevens for x in (RW_3, s, WW_3)]) == alone
  assert of(7, sevens, seed=5) != alone
  # And another problem with the like samples has pairs of its own.
  eights = [dataclasses.replace(s, problem_id=8) for s in sevens]
  assert [x[1] for x in of(8, sevens + eights)] != [x[1] for x in alone]


def test_unknown_methods_are_refused():
  with pytest.raises(
    ValueError, match=r"supervised.method='sft' is none of \('star', 'pair_sft'\)"
  ):
    build_traces(SAMPLES, 'sft', False, 0)


# How they are laid out.

BY_HAND = [
  Trace(Sample(0, [5, 6], ([7, 8], [4, 1]), (True, False), (W, R)), [2, 1]),
  Trace(Sample(1, [4], ([8, 1], [6]), (False, True), (W, R)), [6]),
]


def test_batch_against_rows_laid_by_hand():
  batch = batch_traces(BY_HAND, FOLLOWUP[:2], EOT, num_rows=3, length_bucket=4)
  # The first answer of the first row was cut off, and gets its end: 7 8 [1].
  np.testing.assert_array_equal(
    batch.tokens,
    [[5, 6, 7, 8, 1, 9, 3, 2, 1, 0, 0, 0], [4, 8, 1, 9, 3, 6, *[0] * 6], [0] * 12],
  )
  np.testing.assert_array_equal(batch.is_token, [[1] * 9 + [0] * 3, [1] * 6 + [0] * 6, [0] * 12])
  np.testing.assert_array_equal(
    batch.is_target, [[0] * 7 + [1] * 2 + [0] * 3, [0] * 5 + [1] + [0] * 6, [0] * 12]
  )
  assert (batch.tokens.dtype, batch.is_token.dtype, batch.is_target.dtype) == ('i4', bool, bool)
  np.testing.assert_array_equal(batch.positions, np.tile(np.arange(12), (3, 1)))
  assert batch_traces(BY_HAND, FOLLOWUP[:2], EOT, 2, 9).tokens.shape == (2, 9)


@pytest.fixture(scope='module')
def params():
  """Random parameters, noisy enough that every context has its own distribution."""
  rng = np.random.default_rng(1)

  def draw(path, x):
    return (float(path[-1].key == 'scale') + rng.normal(0.0, 0.35, x.shape)).astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, abstract_params(DECODER.config)[0])


@pytest.fixture(scope='module')
def played(params):
  """Prompts of four problems, three samples each; and their episodes, on the host."""
  prompts = [ids for ids in ([4, 7, 3, 8, 5], [6, 9, 9, 4], [7, 5], [10]) for _ in range(3)]
  keys = episode_keys(0, 5, np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4))
  episode = rollout(DECODER, SPEC, params, *fill_slots(prompts, SPEC.prompt_tokens), keys, 1.0)
  return prompts, jax.device_get(episode)


def laid_out(samples, num_rows, longest):
  traces = [Trace(s, s.answer_ids[1]) for s in samples]
  return batch_traces(traces, FOLLOWUP, EOT, num_rows, longest)


def test_an_episode_comes_back_as_it_was_played(played):
  prompts, episode = played
  is_cut = episode.is_truncated
  assert is_cut.any(axis=0).all() and not is_cut.all(axis=0).any()  # of either kind, at both turns
  reward_BK = np.random.default_rng(0).integers(0, 2, is_cut.shape).astype(np.float32)
  samples = read_samples(episode, range(100, 112), prompts, reward_BK)
  assert [s.problem_id for s in samples] == list(range(100, 112))
  assert [list(s.is_right) for s in samples] == reward_BK.astype(bool).tolist()
  assert [list(s.is_truncated) for s in samples] == is_cut.tolist()
  longest = int(episode.is_token.sum(axis=1).max())
  batch, want = laid_out(samples, 12, longest), jax.device_get(compact(episode, longest))
  np.testing.assert_array_equal(batch.tokens, np.where(want.is_token, want.tokens, 0))
  np.testing.assert_array_equal(batch.is_token, want.is_token)
  np.testing.assert_array_equal(batch.is_target, want.is_sampled & (want.turn == 2))
  # A cut answer without its end would be another context.
  samples = [dataclasses.replace(s, is_truncated=(False, False)) for s in samples]
  batch = laid_out(samples, 12, longest)
  differs = (batch.tokens != np.where(want.is_token, want.tokens, 0)).any(axis=1)
  np.testing.assert_array_equal(differs, is_cut[:, 0])


# What is learnt of them.

B, T, D, WORDS = 2, 7, 4, 33


@pytest.mark.parametrize('cap', [0.0, 1.5])
@pytest.mark.parametrize('chunk', [1, 3, T, 128])
def test_token_logp_is_numpys_log_softmax(chunk, cap):
  rng = np.random.default_rng(3)
  hidden, head = rng.normal(size=(B, T, D)), rng.normal(size=(D, WORDS))
  targets = rng.integers(0, WORDS, (B, T))
  z = hidden @ head
  squashed = cap * np.tanh(z / cap) if cap else z
  targets[0, 2], targets[1, 6] = squashed[0, 2].argmax(), squashed[1, 6].argmax()
  logp = squashed - np.log(np.exp(squashed).sum(-1, keepdims=True))
  is_target = np.arange(WORDS) == targets[..., None]

  def total(hidden, head):
    head = CappedHead(head, cap) if cap else head
    found, is_best = token_logp(hidden, head, jnp.asarray(targets), chunk)
    return jnp.sum(jnp.arange(1.0, 1 + B * T).reshape(B, T) * found), (found, is_best)

  gradient_of = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
  (_, (found, is_best)), grads = gradient_of(jnp.float32(hidden), jnp.float32(head))
  np.testing.assert_allclose(found, logp[is_target].reshape(B, T), atol=1e-5)
  np.testing.assert_array_equal(is_best, logp.argmax(-1) == targets)
  assert is_best[0, 2] and is_best[1, 6] and not is_best.all()
  # d logp / d logit = onehot - p; the cap's own slope is 1 - tanh^2.
  dz = (is_target - np.exp(logp)) * np.arange(1.0, 1 + B * T).reshape(B, T, 1)
  dz *= 1 - np.tanh(z / cap) ** 2 if cap else 1
  np.testing.assert_allclose(grads[0], dz @ head.T, rtol=1e-4, atol=1e-3)
  np.testing.assert_allclose(grads[1], np.einsum('btd,btv->dv', hidden, dz), rtol=1e-4, atol=1e-3)


def policy(trainable, frozen, traces):
  return forward(DECODER, trainable, traces)


loss_and_grads = jax.jit(
  lambda params, traces: jax.value_and_grad(
    lambda params: cross_entropy(policy, params, {}, traces, 5), has_aux=True
  )(params)
)


@pytest.fixture(scope='module')
def batch(played):
  """The episodes as traces, with two rows of padding."""
  prompts, episode = played
  samples = read_samples(episode, range(12), prompts, np.ones((12, 2), np.float32))
  return laid_out(samples, 14, 8)


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
