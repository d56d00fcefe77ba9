"""Episodes that share rows: nothing is lost, nobody sees his neighbour, and the update stays."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_models import GEMMA_CHOICES, random_params, tiny_decoder

from score_jax.core.sharding import MESH_AXES, make_mesh
from score_jax.core.types import Episode, TrainState
from score_jax.model.decoder import Decoder
from score_jax.model.lora import Lora, abstract_adapters, policy_params
from score_jax.objective.stages import Stage, StageArrays
from score_jax.rollout.layout import length_step
from score_jax.training.packing import pack, pack_episodes, pack_traces, rows_at_once
from score_jax.training.supervised import make_supervised_step, unpacked
from score_jax.training.train_step import StepOptions, forward, make_train_step

B, K, V, D, SLOTS = 10, 3, 11, 6, 20
REWARD = np.random.default_rng(3).integers(0, 2, (B, K)).astype(np.float32)
STAGE = Stage('odd', (0.5, 1.0, 2.0), (0.3, 0.05, 0.2), (0.0, 3.0, 1.0))


def episodes(seed=0, count=B):
  """Episodes of three turns with holes anywhere, some of whose answers are forced or empty."""
  rng = np.random.default_rng(seed)
  shape = (count, 30)
  lengths_B4 = np.stack([rng.integers(low, 6, count) for low in (1, 0, 1, 2)], axis=1)
  is_token, turn = np.zeros(shape, bool), np.zeros(shape, np.int32)
  for b, lengths in enumerate(lengths_B4):
    own = np.sort(rng.choice(30, lengths.sum(), replace=False))
    is_token[b, own] = True
    turn[b, own] = np.repeat([0, 1, 2, 3], lengths)
  is_sampled = (turn > 0) & ~((turn == 1) & (np.arange(count) % 4 == 0)[:, None])
  return Episode(
    tokens=rng.integers(0, V, shape).astype(np.int32),  # in holes too
    positions=np.where(is_token, np.cumsum(is_token, axis=1) - 1, 99).astype(np.int32),
    is_token=is_token,
    turn=turn,
    is_sampled=is_sampled,
    sampled_logp=np.where(is_sampled, rng.normal(-2, 1, shape), 0.0).astype(np.float32),
    is_truncated=rng.integers(0, 2, (count, K)).astype(bool),
  )


def padded(e):
  """Rows of an episode each, by a loop: tokens, turn of what was sampled, logp, and lengths."""
  lengths_B = e.is_token.sum(axis=1)
  fields = (e.tokens, np.where(e.is_sampled, e.turn, 0), e.sampled_logp)
  rows = [np.zeros((len(lengths_B), lengths_B.max()), x.dtype) for x in fields]
  for b, n in enumerate(lengths_B):
    for row, x in zip(rows, fields, strict=True):
      row[b, :n] = x[b][e.is_token[b]]
  return *rows, lengths_B


@pytest.mark.parametrize('rows', [1, 3, 4, 10, 12])
def test_every_token_has_a_place_of_its_own(rows):
  e = episodes()
  batch, parts = pack_episodes(e, REWARD, SLOTS, rows, first=100), -(-B // rows)
  r = batch.rows
  assert r.tokens.shape == r.positions.shape == (rows, parts, SLOTS)
  assert r.is_token.sum() == e.is_token.sum()
  tokens, turns, logp, lengths_B = padded(e)
  found = np.sort(r.episode[r.episode < 100 + B])
  np.testing.assert_array_equal(found, 100 + np.arange(B))
  for n, c, s in np.argwhere(r.episode < 100 + B):
    b = r.episode[n, c, s] - 100
    mine = r.is_token[n, c] if parts == 1 else r.segment[n, c] == s + 1
    slots = np.flatnonzero(mine)
    assert r.is_token[n, c, slots].all() and (np.diff(slots) == 1).all()  # in one piece
    np.testing.assert_array_equal(r.positions[n, c, slots], np.arange(lengths_B[b]))
    np.testing.assert_array_equal(r.tokens[n, c, slots], tokens[b, : lengths_B[b]])
    np.testing.assert_array_equal(r.sampled_logp[n, c, slots], logp[b, : lengths_B[b]])
    turn = turns[b, : lengths_B[b]]
    np.testing.assert_array_equal(r.turn[n, c, slots], np.where(turn, turn + K * s, 0))
  # What has no token is empty, and comes last.
  for x in (r.tokens, r.positions, r.turn, r.sampled_logp):
    assert not x[~r.is_token].any()
  is_filled = r.is_token.any(axis=(0, 2))
  assert (np.diff(is_filled.astype(int)) <= 0).all()
  assert (r.segment is None) == (parts == 1)
  np.testing.assert_array_equal(batch.is_truncated, e.is_truncated)


def test_an_episode_that_is_too_long_is_refused():
  for rows in (2, B):
    with pytest.raises(ValueError, match='an episode of 19 tokens does not fit into 18 slots'):
      pack(np.arange(19) < np.array([[3], [19], [4]]), 18, min(rows, 3))


@pytest.mark.parametrize(('scale', 'count'), [(4, 64), (4, 512), (1, 128), (1, 512)])
def test_few_slots_are_holes(scale, count):
  """On two answers as long as MATH's own solutions (in tokens: median 151), or a quarter of it."""
  mesh, found, before = make_mesh((1, 1, 1), jax.devices()[:1]), [], []
  for seed in range(10):
    rng = np.random.default_rng(seed)
    budget, prompt = 1024 // scale, 256 // scale
    answers = np.clip(rng.lognormal(np.log(151 / scale), 0.74, (2, count)), 1, budget)
    lengths_B = (answers.astype(int).sum(axis=0) + rng.integers(20, 200, count) // scale) + 15
    step = length_step(64, prompt + 2 * budget + 16)
    slots = -(-int(lengths_B.max()) // step) * step
    rows = rows_at_once(count, slots, mesh)
    is_token = pack(np.arange(lengths_B.max()) < lengths_B[:, None], slots, rows).is_token
    computed = rows * is_token.any(axis=(0, 2)).sum() * slots
    assert is_token.sum() == lengths_B.sum()
    found.append(computed / lengths_B.sum())
    before.append(count * slots / lengths_B.sum())
  assert np.mean(found) < 1.15 and np.mean(before) > 2.5


def test_how_many_rows_at_a_time():
  def at_once(episodes, slots, mesh=(1, 1, 1), platform='tpu', **options):
    devices = np.full(mesh, types.SimpleNamespace(platform=platform))
    mesh = types.SimpleNamespace(shape=dict(zip(MESH_AXES, mesh, strict=True)), devices=devices)
    return rows_at_once(episodes, slots, mesh, **options)

  assert at_once(512, 2048) == 16  # a 32nd
  assert at_once(512, 2048, micro_batches=4) == 4
  assert at_once(64, 128) == 32  # 4,096 slots
  assert at_once(64, 128, platform='cpu') == 4  # 512 slots
  assert at_once(64, 128, micro_batches=4) == 16  # more would take more memory
  assert at_once(16, 8) == 16
  assert at_once(512, 512, (2, 4, 1)) == 64  # 4,096 slots on each device
  assert at_once(512, 2048, (3, 1, 2)) == 18


# What the model sees.

MODELS = {
  # All that tells layers apart; and what kernels can do.
  'plain': tiny_decoder(num_layers=2, **GEMMA_CHOICES | {'window_pattern': (True, False)}),
  'xla': tiny_decoder(num_layers=2, window=3, window_pattern=(True, False), attention='xla'),
}


@pytest.mark.parametrize('name', MODELS)
def test_an_episode_sees_itself_alone(name):
  """Hidden states and adapters' gradients are those of a row for each; a neighbour is not seen."""
  config, lora = MODELS[name], Lora(2, 4.0, ('q', 'down'))
  rng, e = np.random.default_rng(1), episodes()
  params = random_params(config)
  adapters = jax.tree.map(
    lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), abstract_adapters(config, lora)[0]
  )
  packed = jax.tree.map(lambda x: x[:, 0], pack_episodes(e, REWARD, 60, 4).rows)
  assert (packed.episode < B).sum() == B
  alone = jax.tree.map(lambda x: x[:, 0], pack_episodes(e, REWARD, SLOTS, B).rows)
  toward_BTD = rng.normal(size=(B, SLOTS, config.embed_dim)).astype(np.float32)
  place = np.full((*packed.tokens.shape, 2), 0)
  for n, s in np.argwhere(packed.episode < B):
    slots = np.flatnonzero(packed.segment[n] == s + 1)
    place[n, slots] = np.stack(
      [np.full(len(slots), packed.episode[n, s]), np.arange(len(slots))], 1
    )

  @jax.jit
  def run(adapters, rows, toward):
    def loss(adapters):
      hidden, _ = forward(Decoder(config), policy_params(params, adapters, lora), rows)
      return jnp.vdot(jnp.where(rows.is_token[..., None], hidden, 0.0), toward), hidden

    grads, hidden = jax.grad(loss, has_aux=True)(adapters)
    return hidden, grads

  want, want_grads = run(adapters, alone, toward_BTD)
  there = tuple(np.moveaxis(place, -1, 0))
  have, grads = run(adapters, packed, toward_BTD[there])
  np.testing.assert_allclose(
    have[packed.is_token], np.asarray(want)[there][packed.is_token], atol=1e-5
  )
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4), grads, want_grads
  )
  # Other tokens in the first episodes of rows change nothing of those behind them, bit for bit.
  other = packed.replace(tokens=np.where(packed.segment == 1, 1 + packed.tokens % 9, packed.tokens))
  changed, _ = run(adapters, other, toward_BTD[there])
  np.testing.assert_array_equal(changed[packed.segment > 1], have[packed.segment > 1])
  assert np.abs(changed - have)[packed.segment == 1].max() > 0.1


# What is learnt. The policy looks up states by token and position: the objective is tested.


def look_up(params, rows):
  hidden = params['token'][rows.tokens] + params['position'][rows.positions]
  return hidden, params['head']


def lookup_params(seed):
  rng = np.random.default_rng(seed)
  shapes = {'token': (V, D), 'position': (SLOTS, D), 'head': (D, V)}
  return {name: rng.normal(0, 0.7, shape).astype(np.float32) for name, shape in shapes.items()}


POLICY, REFERENCE = lookup_params(1), lookup_params(2)


@functools.cache
def step_of(estimator='exact', credit='turn'):
  return make_train_step(
    lambda trainable, frozen, rows: look_up(trainable, rows),
    look_up,
    optax.sgd(1.0),
    StepOptions(5, 'rloo', estimator, credit, temperature=0.8, chunk=7),
  )


def update(batch, step):
  """Gradient and metrics."""
  state = TrainState(jnp.int32(0), jax.tree.map(jnp.array, POLICY), optax.sgd(1.0).init(POLICY))
  state, metrics = step(state, REFERENCE, batch, StageArrays.of(STAGE))
  grads = jax.tree.map(lambda old, new: old - np.asarray(new), POLICY, state.trainable)
  return grads, jax.device_get(metrics)


def advantages_by_hand():
  """Each episode's shaped rewards less the mean of its problem's four others."""
  shaped = np.array(STAGE.reward_weight) * REWARD
  shaped[:, 1:] += np.array(STAGE.bonus[1:]) * (REWARD[:, 1:] - REWARD[:, :-1])
  groups = shaped.reshape(2, 5, K)
  return (groups - (groups.sum(axis=1, keepdims=True) - groups) / 4).reshape(B, K)


def loss_by_hand(params, e, estimator, credit):
  """The loss over rows of an episode each, under pair masks in place of sums from behind."""
  tokens, turns, _, _ = padded(e)
  positions = np.tile(np.arange(tokens.shape[1]), (B, 1))
  logp_BTV, ref_BTV = (
    jax.nn.log_softmax((p['token'][tokens] + p['position'][positions])[:, :-1] @ p['head'] / 0.8)
    for p in (params, REFERENCE)
  )
  turn_BT = turns[:, 1:]
  logp, ref = (jnp.take_along_axis(x, tokens[:, 1:, None], -1)[..., 0] for x in (logp_BTV, ref_BTV))
  exact = (jnp.exp(logp_BTV) * (logp_BTV - ref_BTV)).sum(-1)
  own, penalty, kl = {
    'exact': (exact, 0.0, exact),
    'k1_reward': (0.0, logp - ref, logp - ref),
    'k2': ((logp - ref) ** 2 / 2, 0.0, logp - ref),
  }[estimator]
  if credit == 'turn':
    is_later = np.triu(np.ones((turn_BT.shape[1],) * 2), 1)[None]
    is_later = is_later * (turn_BT[:, :, None] == turn_BT[:, None])
    penalty = penalty + (is_later * kl[:, None]).sum(-1)
  of_turn = np.eye(K + 1, dtype=np.float32)[:, 1:][turn_BT]  # [B, T, K]
  adv_BT = (of_turn * advantages_by_hand()[:, None].astype(np.float32)).sum(-1)
  weight_BT = of_turn @ np.array(STAGE.kl_weight, np.float32)
  term = weight_BT * (own + jax.lax.stop_gradient(penalty) * logp) - adv_BT * logp
  return jnp.where(turn_BT > 0, term, 0.0).sum() / B


@pytest.mark.parametrize('credit', ['turn', 'token'])
@pytest.mark.parametrize('estimator', ['exact', 'k1_reward', 'k2'])
def test_packed_episodes_teach_what_they_teach_alone(estimator, credit):
  e = episodes()
  by_hand = jax.jit(jax.value_and_grad(lambda params: loss_by_hand(params, e, estimator, credit)))
  loss, want = by_hand(POLICY)
  grads, metrics = update(pack_episodes(e, REWARD, SLOTS, 2), step_of(estimator, credit))
  np.testing.assert_allclose(metrics['train/loss'], loss, rtol=1e-5, atol=1e-5)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), grads, want)
  assert max(np.abs(x).max() for x in jax.tree.leaves(want)) > 0.1


@pytest.mark.parametrize('rows', [1, 3, 4])
def test_metrics_do_not_depend_on_how_rows_are_filled(rows):
  e = episodes()
  grads, want = update(pack_episodes(e, REWARD, SLOTS, B), step_of())
  packed, have = update(pack_episodes(e, REWARD, SLOTS, rows), step_of())
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), packed, grads)
  tokens = e.is_token.sum()
  assert want.pop('train/slots_per_token') == pytest.approx(B * SLOTS / tokens)
  filled = pack_episodes(e, REWARD, SLOTS, rows).rows.is_token.any(axis=(0, 2)).sum()
  assert have.pop('train/slots_per_token') == pytest.approx(filled * rows * SLOTS / tokens)
  assert filled < -(-B // rows) and want.keys() == have.keys()
  for key, value in want.items():
    np.testing.assert_allclose(have[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


def test_processes_pack_their_own_episodes():
  """Each numbers its episodes; one that has fewer tokens has empty rows in the last parts."""
  e = episodes()
  order = np.argsort(e.is_token.sum(axis=1)).reshape(2, 5)  # the short ones, and the long ones
  e, reward = jax.tree.map(lambda x: x[order.ravel()], (e, REWARD))
  halves = [jax.tree.map(lambda x, i=i: x[5 * i : 5 * i + 5], (e, reward)) for i in range(2)]
  each = [pack_episodes(*half, SLOTS, 1, first=5 * i) for i, half in enumerate(halves)]
  filled = [batch.rows.is_token.any(axis=(0, 2)).sum() for batch in each]
  assert filled[0] < filled[1]
  both = jax.tree.map(lambda *x: np.concatenate(x), *each)
  want, metrics = update(pack_episodes(e, reward, SLOTS, B), step_of())
  have, others = update(both, step_of())
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), have, want)
  for key in metrics.keys() - {'train/slots_per_token'}:
    np.testing.assert_allclose(others[key], metrics[key], rtol=1e-4, atol=1e-5, err_msg=key)


def test_packed_traces_teach_what_they_teach_alone():
  e = episodes(seed=4, count=12)
  tokens, turns, _, lengths_B = padded(e)
  lengths_B[7:9] = 0  # rows that are empty
  is_token = np.arange(tokens.shape[1]) < lengths_B[:, None]
  traces = unpacked(tokens, is_token, (turns == 3) & is_token)
  step = make_supervised_step(
    lambda params, frozen, rows: look_up(params, rows), optax.sgd(1.0), chunk=7
  )

  def learn(batch):
    params = jax.tree.map(jnp.array, POLICY)
    state = TrainState(jnp.int32(0), params, optax.sgd(1.0).init(params))
    return jax.device_get(step(state, {}, batch))

  packed = pack_traces(traces, 2)
  assert packed.tokens.shape[:2] == (2, 6) and packed.is_token.any(axis=(0, 2)).sum() < 6
  assert packed.is_target.sum() == traces.is_target.sum()
  want, have = learn(traces), learn(packed)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), have, want)
