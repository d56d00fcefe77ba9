"""Traces to imitate: which are chosen, and how they are laid out."""

import collections
import dataclasses

import jax
import numpy as np
import pytest
from small_models import random_params, tiny_decoder

from score_jax.core.types import compact
from score_jax.model.decoder import Decoder
from score_jax.rollout.keys import episode_keys
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.multi_turn import rollout
from score_jax.rollout.text import fill_slots
from score_jax.training.traces import Sample, Trace, batch_traces, build_traces, read_samples

EOT = 1
FOLLOWUP = (9, 10)
# As in test_train_step.py, for which it is compiled too.
DECODER = Decoder(tiny_decoder())
SPEC = RolloutSpec(
  prompt_tokens=3, turn_tokens=(3, 4), followup_ids=(FOLLOWUP,), end_of_turn_ids=(EOT, 2)
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
  batch = batch_traces(BY_HAND, (9, 3), EOT, num_rows=3, length_bucket=4)
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
  assert batch_traces(BY_HAND, (9, 3), EOT, 2, 9).tokens.shape == (2, 9)


@pytest.fixture(scope='module')
def sampled():
  """Prompts of four problems, two samples each; and their episodes, on the host."""
  prompts = [ids for ids in ([4, 7, 3], [6, 9], [7, 5], [10]) for _ in range(2)]
  keys = episode_keys(0, 5, np.repeat(np.arange(4), 2), np.tile(np.arange(2), 4))
  filled = fill_slots(prompts, SPEC.prompt_tokens)
  episode = rollout(DECODER, SPEC, random_params(DECODER.config, 1), *filled, keys, 1.0)
  return prompts, jax.device_get(episode)


def laid_out(samples, num_rows, longest):
  traces = [Trace(s, s.answer_ids[1]) for s in samples]
  return batch_traces(traces, FOLLOWUP, EOT, num_rows, longest)


def test_an_episode_comes_back_as_it_was_sampled(sampled):
  prompts, episode = sampled
  is_cut = episode.is_truncated
  assert is_cut.any(axis=0).all() and not is_cut.all(axis=0).any()  # of either kind, at both turns
  reward_BK = np.random.default_rng(0).integers(0, 2, is_cut.shape).astype(np.float32)
  samples = read_samples(episode, range(100, 108), prompts, reward_BK)
  assert [s.problem_id for s in samples] == list(range(100, 108))
  assert [list(s.is_right) for s in samples] == reward_BK.astype(bool).tolist()
  assert [list(s.is_truncated) for s in samples] == is_cut.tolist()
  longest = int(episode.is_token.sum(axis=1).max())
  batch, want = laid_out(samples, 8, longest), jax.device_get(compact(episode, longest))
  np.testing.assert_array_equal(batch.tokens, np.where(want.is_token, want.tokens, 0))
  np.testing.assert_array_equal(batch.is_token, want.is_token)
  np.testing.assert_array_equal(batch.is_target, want.is_sampled & (want.turn == 2))
  # A cut answer without its end would be another context.
  samples = [dataclasses.replace(s, is_truncated=(False, False)) for s in samples]
  batch = laid_out(samples, 8, longest)
  differs = (batch.tokens != np.where(want.is_token, want.tokens, 0)).any(axis=1)
  np.testing.assert_array_equal(differs, is_cut[:, 0])
