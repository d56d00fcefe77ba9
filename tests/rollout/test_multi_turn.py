"""The sampler of whole episodes: what it samples, what it remembers, what it does not depend on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import random_params, tiny_decoder

from score_jax.core.types import compact, turn_masks
from score_jax.model.decoder import Decoder
from score_jax.rollout.keys import episode_keys
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.multi_turn import rollout
from score_jax.training.train_step import StepOptions, forward, score_episode

EOT = 1
G = 3
CONFIG = tiny_decoder(num_layers=2, embed_dim=16, mlp_dim=32, head_dim=4, scan_unroll=2)
DECODER = Decoder(CONFIG)
SPEC = RolloutSpec(
  prompt_tokens=5, turn_tokens=(4, 6), followup_ids=((9, 3, 10),), end_of_turn_ids=(EOT, 2)
)
FIRST_Y2, MAX_TOKENS = 13, 19
# Four problems of one to five tokens, with holes at the left, in the middle and at the right.
PROBLEMS = np.array([[4, 7, 3, 8, 5], [0, 6, 9, 9, 4], [7, 0, 0, 5, 0], [0, 0, 0, 0, 10]], np.int32)
IS_PROBLEM = np.array([[1, 1, 1, 1, 1], [0, 1, 1, 1, 1], [1, 0, 1, 1, 0], [0, 0, 0, 0, 1]], bool)
PROBLEM, SAMPLE = np.repeat(np.arange(4), G), np.tile(np.arange(G), 4)


@pytest.fixture(scope='module')
def params():
  """Random parameters, noisy enough that every context has its own distribution."""
  return random_params(CONFIG, seed=1)


def sample_rows(params, problem=PROBLEM, sample=SAMPLE, temperature=1.0, seed=0, **kwargs):
  """Samples the named samples of the named problems; the episode is on the host."""
  keys = episode_keys(seed, 5, problem, sample)
  prompt, is_prompt = PROBLEMS[problem], IS_PROBLEM[problem]
  spec = kwargs.pop('spec', SPEC)
  return jax.device_get(
    rollout(DECODER, spec, params, prompt, is_prompt, keys, temperature, **kwargs)
  )


@pytest.fixture(scope='module')
def episode(params):
  """The episode that most tests look at."""
  e = sample_rows(params)
  # It holds what the tests are about: ended and cut answers of both turns.
  assert e.is_truncated.any(axis=0).all() and not e.is_truncated.all(axis=0).any()
  return e


def rows_of(episode):
  """Each row's real token ids in the order of their positions."""
  rows = []
  for tokens, positions, is_token in zip(
    episode.tokens, episode.positions, episode.is_token, strict=True
  ):
    slots = np.flatnonzero(is_token)
    assert sorted(positions[slots]) == list(range(len(slots)))
    rows.append(tokens[slots[np.argsort(positions[slots])]].tolist())
  return rows


def answer(episode, row, turn):
  return episode.tokens[row, episode.turn[row] == turn + 1].tolist()


@jax.jit
def run(params, tokens_BT, positions_BT, mask_BTT):
  """Hidden states and head, with a mask that the test makes."""
  return DECODER.apply({'params': params}, tokens_BT, positions_BT, mask_BTT)[:2]


def plain_logp(params, episode, temperature=1.0):
  """Log-probability of every real token but the first, from plain rows under a triangular mask.

  Built without the package's masks: f32[B, T] in the episode's slots, 0 elsewhere.
  """
  B, T = episode.tokens.shape
  plain = np.zeros((B, T), np.int32)
  for b, row in enumerate(rows_of(episode)):
    plain[b, : len(row)] = row
  positions = np.broadcast_to(np.arange(T, dtype=np.int32), (B, T))
  mask = np.broadcast_to(np.tril(np.ones((T, T), bool)), (B, T, T))
  hidden, head = map(np.asarray, run(params, plain, positions, mask))
  logits = (hidden @ head).astype(np.float64) / temperature
  logp = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
  out = np.zeros((B, T))
  for b, t in np.argwhere(episode.is_token & (episode.positions > 0)):
    out[b, t] = logp[b, episode.positions[b, t] - 1, episode.tokens[b, t]]
  return out


def gap(episode, logp_BT):
  """Largest difference between a scorer and what the sampler reported, for each turn, in nats."""
  difference = np.abs(logp_BT - episode.sampled_logp)
  return [difference[episode.is_sampled & (episode.turn == k + 1)].max(initial=0) for k in range(2)]


# (a) Sampler and scorer agree.


@functools.partial(jax.jit, static_argnums=2)
def scored(params, episode, temperature):
  """What the update's scorer says, with the policy as its own reference."""
  out = forward(DECODER, params, episode)
  options = StepOptions(samples_per_problem=G, temperature=temperature)
  return score_episode(out, out, episode, options)


@pytest.mark.parametrize('temperature', [1.0, 0.7])
def test_sampled_logp_is_teacher_forced(params, episode, temperature):
  e = episode if temperature == 1.0 else sample_rows(params, temperature=temperature)
  assert max(gap(e, plain_logp(params, e, temperature))) < 1e-4
  # The scorer of the update, over compacted rows.
  short = compact(jax.tree.map(jnp.asarray, e), MAX_TOKENS)
  scores = scored(params, short, temperature)
  masks = np.asarray(turn_masks(short, 2))[..., 1:]
  assert masks.sum() == e.is_sampled.sum()  # compacting loses no token
  difference = np.abs(np.asarray(scores.logp - short.sampled_logp[:, 1:]))
  for k in range(2):
    assert difference[masks[:, k]].max() < 1e-4
  np.testing.assert_allclose(scores.kl, 0.0, atol=1e-5)  # the reference was the policy


def test_compact_keeps_rows(episode):
  short = jax.device_get(compact(jax.tree.map(jnp.asarray, episode), MAX_TOKENS))
  assert rows_of(short) == rows_of(episode)
  for name in ('turn', 'is_sampled', 'sampled_logp'):
    for b in range(len(episode.tokens)):
      kept = getattr(episode, name)[b, episode.is_token[b]]
      np.testing.assert_array_equal(getattr(short, name)[b, short.is_token[b]], kept)


# (b), (c) What an episode holds.


def check_contexts(episode):
  """Turn 2's context is prompt, the exact ids of turn 1, an needed end of turn, the instruction."""
  for b, row in enumerate(rows_of(episode)):
    prompt = PROBLEMS[PROBLEM[b], IS_PROBLEM[PROBLEM[b]]].tolist()
    end = [EOT] if episode.is_truncated[b, 0] else []
    y1, y2 = answer(episode, b, 0), answer(episode, b, 1)
    assert row == prompt + y1 + end + [9, 3, 10] + y2
    is_mine = np.zeros(len(row), bool)
    is_mine[len(prompt) : len(prompt) + len(y1)] = True
    is_mine[len(row) - len(y2) :] = True
    slots = np.flatnonzero(episode.is_token[b])
    np.testing.assert_array_equal(episode.is_sampled[b, slots], is_mine)


def test_turn_2_sees_the_ids_of_turn_1(episode):
  check_contexts(episode)
  assert not episode.is_sampled[~episode.is_token].any()
  assert (episode.sampled_logp[~episode.is_sampled] == 0).all()
  assert (episode.sampled_logp[episode.is_sampled] < 0).all()


def check_ends(episode, is_trained_BT):
  """An end of turn that was sampled is kept and trained, and is the last token of its turn."""
  for b in range(len(episode.tokens)):
    for k, budget in enumerate(SPEC.turn_tokens):
      y = answer(episode, b, k)
      ends = [t in SPEC.end_of_turn_ids for t in y]
      assert not any(ends[:-1])
      assert ends[-1] != episode.is_truncated[b, k]
      assert ends[-1] or len(y) == budget
      assert is_trained_BT[b, episode.turn[b] == k + 1].all()


def test_end_of_turn_is_sampled_and_last(episode):
  check_ends(episode, episode.is_sampled)


# (d), (e) What a sample depends on.


def test_sample_depends_on_its_own_key_alone(params, episode):
  rows = rows_of(episode)
  order = np.random.default_rng(0).permutation(len(rows))
  permuted = sample_rows(params, PROBLEM[order], SAMPLE[order])
  assert rows_of(permuted) == [rows[b] for b in order]
  np.testing.assert_allclose(permuted.sampled_logp, episode.sampled_logp[order], atol=1e-5)
  for b in (1, 8):
    assert rows_of(sample_rows(params, PROBLEM[b : b + 1], SAMPLE[b : b + 1])) == [rows[b]]
  # G = 2 gives the first two of the three samples, in a batch of other problems.
  problem, sample = np.repeat([0, 1, 2, 3, 3, 0], 2), np.tile(np.arange(2), 6)
  want = [rows[G * p + i] for p, i in zip(problem, sample, strict=True)]
  assert rows_of(sample_rows(params, problem, sample)) == want
  # And keys matter: another seed, other samples; samples of one problem differ.
  assert rows_of(sample_rows(params, seed=1)) != rows
  assert len({tuple(row) for row in rows}) > 8


def test_greedy_ignores_keys(params):
  one, two = sample_rows(params, temperature=0.0), sample_rows(params, temperature=0.0, seed=9)
  assert rows_of(one) == rows_of(two)
  assert (one.sampled_logp == 0).all()
  first = rows_of(one)[::G]
  assert rows_of(one) == [row for row in first for _ in range(G)]


# (f) Forced answers.


def forced_turn(episode, edit=lambda y: y):
  """Turn 1 of an episode as a forced answer, after `edit` of each list of ids."""
  tokens = np.zeros((len(episode.tokens), SPEC.turn_tokens[0]), np.int32)
  is_token = np.zeros(tokens.shape, bool)
  for b in range(len(tokens)):
    y = edit(answer(episode, b, 0))
    tokens[b, : len(y)], is_token[b, : len(y)] = y, True
  return {0: (tokens, is_token)}


@pytest.fixture(scope='module')
def with_forced(params, episode):
  """The episode again, with its first answers forced instead of sampled."""
  return sample_rows(params, forced=forced_turn(episode))


def test_forced_answers_are_context(params, episode, with_forced):
  assert rows_of(with_forced) == rows_of(episode)
  np.testing.assert_array_equal(with_forced.is_truncated, episode.is_truncated)
  np.testing.assert_array_equal(with_forced.turn, episode.turn)
  is_turn_1 = with_forced.turn == 1
  assert is_turn_1.any() and not with_forced.is_sampled[is_turn_1].any()
  np.testing.assert_array_equal(with_forced.is_sampled[~is_turn_1], episode.is_sampled[~is_turn_1])
  np.testing.assert_allclose(
    with_forced.sampled_logp[:, FIRST_Y2:], episode.sampled_logp[:, FIRST_Y2:], atol=1e-5
  )


# Faults that others have: each check above must see the one that it is for.


@pytest.mark.parametrize(
  'edit', [lambda y: y[:1], lambda y: [(y[0] + 1) % 11, *y[1:]]], ids=['cut', 'retokenised']
)
def test_other_context_is_seen(params, episode, with_forced, edit):
  """Turn 2 sampled after something else than turn 1's ids, in an episode that shows turn 1."""
  e = sample_rows(params, forced=forced_turn(episode, edit))
  is_late = np.arange(e.tokens.shape[1]) >= FIRST_Y2
  claimed = jax.tree.map(
    lambda true, seen: np.where(is_late[None], seen, true) if true.shape[1] > 2 else true,
    with_forced,
    e,
  )
  claimed = claimed.replace(positions=np.maximum(np.cumsum(claimed.is_token, axis=1) - 1, 0))
  assert gap(with_forced, plain_logp(params, with_forced))[1] < 1e-4
  assert gap(claimed, plain_logp(params, claimed))[1] > 1e-2


def slot_logp(params, episode, is_token, positions):
  """Scores in slots, predecessor by position, with a mask made of the given arrays."""
  mask = (positions[:, None, :] <= positions[:, :, None]) & is_token[:, None, :]
  hidden, head = map(np.asarray, run(params, episode.tokens, positions, mask))
  logp = np.asarray(jax.nn.log_softmax(hidden @ head))
  out = np.zeros(episode.tokens.shape)
  for b, t in np.argwhere(episode.is_sampled):
    before = np.flatnonzero(episode.is_token[b, :t])[-1]
    out[b, t] = logp[b, before, episode.tokens[b, t]]
  return out


def test_mask_without_holes_is_seen(params, episode):
  """Padded rows scored without an attention mask, or with slots for positions."""
  e = episode
  slots = np.broadcast_to(np.arange(e.tokens.shape[1], dtype=np.int32), e.tokens.shape)
  assert max(gap(e, slot_logp(params, e, e.is_token, e.positions))) < 1e-4
  assert min(gap(e, slot_logp(params, e, np.ones_like(e.is_token), slots))) > 1e-2
  assert max(gap(e, slot_logp(params, e, e.is_token, slots))) > 1e-2


def test_mask_from_pad_id_is_seen(episode):
  """A model that pads with its end of turn: `!= pad_id` leaves the end of turn untrained."""
  with pytest.raises(AssertionError):
    check_ends(episode, episode.is_sampled & (episode.tokens != EOT))


def test_other_temperature_is_seen(params, episode):
  assert min(gap(episode, plain_logp(params, episode, temperature=0.7))) > 1e-2


# (i) The edges.


def test_answers_are_told_as_they_end(params, episode):
  told = []
  sample_rows(params, slots=4, on_answers=told.append)
  found = {(a.row, a.turn): a.ids for answers in told for a in answers}
  assert len(found) == sum(map(len, told)) == 2 * len(episode.tokens)
  for (row, turn), ids in found.items():
    assert ids == answer(episode, row, turn)
  # Second answers of some rows are there before the first ones of others.
  order = [(a.row, a.turn) for answers in told for a in answers]
  assert order.index((0, 1)) < order.index((11, 0))


def test_shapes_are_checked(params):
  keys = episode_keys(0, 0, PROBLEM, SAMPLE)
  prompt, is_prompt = PROBLEMS[PROBLEM], IS_PROBLEM[PROBLEM]
  with pytest.raises(ValueError, match='5 prompt slots'):
    rollout(DECODER, SPEC, params, prompt[:, :4], is_prompt[:, :4], keys, 1.0)
  with pytest.raises(ValueError, match='5 prompt slots'):
    rollout(DECODER, SPEC, params, prompt, is_prompt[:2], keys, 1.0)
  wrong = {0: (np.zeros((12, 3), np.int32), np.ones((12, 3), bool))}
  with pytest.raises(ValueError, match='forced answers of turn 0'):
    rollout(DECODER, SPEC, params, prompt, is_prompt, keys, 1.0, forced=wrong)
  budgets = np.full((12, 2), 5)
  with pytest.raises(ValueError, match=r'budgets of 5 to 5 tokens: .* 1 to \(4, 6\)'):
    rollout(DECODER, SPEC, params, prompt, is_prompt, keys, 1.0, budgets=budgets)
  with pytest.raises(ValueError, match='slots=0'):
    rollout(DECODER, SPEC, params, prompt, is_prompt, keys, 1.0, slots=0)
