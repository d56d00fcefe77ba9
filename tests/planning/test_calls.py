"""A rollout's calls, found without a device, are those of a rollout."""

import collections

import numpy as np
import pytest
from small_models import random_params, tiny_decoder

from score_jax.model.decoder import Decoder
from score_jax.planning.calls import rollout_calls
from score_jax.planning.lengths import Lengths
from score_jax.rollout import sizes as sizing
from score_jax.rollout.keys import episode_keys
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.multi_turn import rollout

CONFIG = tiny_decoder(num_layers=1)
# No token of the model ends a turn: so all of them end where they are told to.
SPEC = RolloutSpec(5, (7, 9), ((3, 4),), end_of_turn_ids=(99,))
ANSWERS = np.array([[7, 1], [2, 9], [1, 1], [4, 4], [7, 9], [3, 2], [1, 6], [5, 5]])
LENGTHS = Lengths(np.repeat([5, 2, 3, 4], 2), ANSWERS, (3,), samples=2)


@pytest.fixture
def small(monkeypatch):
  """Blocks, pieces and lengths of a few tokens."""
  for name, size in (('_MOST_STEPS', 4), ('_LEAST_PIECE', 2), ('_LEAST_LENGTH', 4)):
    monkeypatch.setattr(sizing, name, size)
  monkeypatch.setattr(sizing, '_LEAST_GIVEN', 4)
  monkeypatch.setattr(sizing, '_LEAST_QUARTER', 1)


@pytest.mark.parametrize('slots', [8, 4])
def test_calls_are_those_of_a_rollout(small, slots):
  calls, told = rollout_calls(SPEC, sizing.Sizes.of(SPEC, slots), 1, LENGTHS)
  is_prompt = np.arange(5) < LENGTHS.prompts[:, None]
  problem, sample = np.arange(8) // 2, np.arange(8) % 2
  prompt, counts = np.where(is_prompt, 1 + problem[:, None], 0), collections.Counter()
  rollout(
    Decoder(CONFIG),
    SPEC,
    random_params(CONFIG),
    prompt,
    is_prompt,
    episode_keys(0, 0, problem, sample),
    1.0,
    slots=slots,
    budgets=ANSWERS,
    counts=counts,
  )
  assert told == counts and counts['sampled'] == ANSWERS.sum()
  assert sum(calls.steps.values()) == counts['steps'] > 16
  assert sum(n * shape.rows for shape, n in calls.steps.items()) == counts['decoded']
  assert calls.blocks.keys() == calls.steps.keys() and len(calls.steps) > 1


def test_calls_by_hand(small):
  """Two devices of one slot, turns of 7 and 9: blocks of 4, 3, 4, 4 and 1, for each of two rows."""
  sizes = sizing.Sizes.of(SPEC, 1)
  assert (sizes.steps, sizes.piece, sizes.rows) == (4, 3, 1)
  assert sizes.lengths == (6, 12, 18, 24)
  full = Lengths(np.full(4, 5), np.tile([7, 9], (4, 1)), (3,), samples=1)
  calls, counts = rollout_calls(SPEC, sizes, 2, full)
  # Behind 5 and 9 tokens, then behind 15, 19 and 23.
  assert {(x.rows, x.length): n for x, n in calls.steps.items()} == {
    (1, 6): 2 * 4,
    (1, 12): 2 * 3,
    (1, 18): 2 * 4,
    (1, 32): 2 * (4 + 1),  # all that there is
  }
  assert {x.length: n for x, n in calls.blocks.items()} == {6: 2, 12: 2, 18: 2, 32: 4}
  # Two pieces of a prompt and one between the turns, of both devices at once.
  assert calls.given == 2 * 3
  assert counts['sampled'] == counts['decoded'] == 4 * 16
