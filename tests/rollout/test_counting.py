"""Episodes of a model that can only count, so that every token of every turn is known."""

import jax
import numpy as np
import pytest
from small_models import counting_model

from score_jax.rollout.keys import episode_keys
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.multi_turn import rollout

EOT = 7
# One row each that ends in 5, 2 and 6, with holes after, around and before.
PROMPT = np.array([[5, 0, 0], [0, 2, 0], [0, 3, 6]], np.int32)
IS_PROMPT = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 1]], bool)


DECODER, PARAMS = counting_model()


def sample(spec, temperature=1.0, **how):
  keys = episode_keys(0, 0, np.arange(3), np.zeros(3, np.int32))
  return jax.device_get(rollout(DECODER, spec, PARAMS, PROMPT, IS_PROMPT, keys, temperature, **how))


def real(episode):
  rows = zip(episode.tokens, episode.is_token, strict=True)
  return [row[is_token].tolist() for row, is_token in rows]


@pytest.mark.parametrize('temperature', [1.0, 0.0])
def test_two_turns(temperature):
  """The whole table by hand. Slots: 3 prompt, 4 y1, 1 needed end of turn, 2 instruction, 40 y2."""
  spec = RolloutSpec(
    prompt_tokens=3, turn_tokens=(4, 40), followup_ids=((0, 4),), end_of_turn_ids=(EOT,)
  )
  e = sample(spec, temperature)
  assert real(e) == [
    [5, 6, 7, 0, 4, 5, 6, 7],
    [2, 3, 4, 5, 6, 7, 0, 4, 5, 6, 7],  # the budget ends at 6; the first 7 is appended
    [3, 6, 7, 0, 4, 5, 6, 7],
  ]
  assert e.is_truncated.tolist() == [[False, False], [True, False], [False, False]]
  turn = [row[is_token].tolist() for row, is_token in zip(e.turn, e.is_token, strict=True)]
  assert turn == [
    [0, 1, 1, 0, 0, 2, 2, 2],
    [0, 1, 1, 1, 1, 0, 0, 0, 2, 2, 2],
    [0, 0, 1, 0, 0, 2, 2, 2],
  ]
  np.testing.assert_array_equal(e.is_sampled, e.turn > 0)
  np.testing.assert_allclose(e.sampled_logp, 0.0, atol=1e-5)
  # All rows ended after 3 of 40 tokens. A loop that had gone on would have written more ids.
  assert not e.is_token[:, 13:].any() and not e.tokens[:, 13:].any()


def counted(prompt, spec):
  """What the model says of a prompt, by a loop; a cut answer is ended before the next one."""
  row = list(prompt)
  for k, budget in enumerate(spec.turn_tokens):
    row += spec.followup_ids[k - 1] if k else ()
    for _ in range(budget):
      row.append(row[-1] + 1)
      if row[-1] == EOT:
        break
    else:
      row += [EOT] if k + 1 < spec.num_turns else []
  return row


@pytest.mark.parametrize('slots', [None, 2])
def test_ten_turns(slots):
  """Every other answer is cut; three rows through two slots give the same episodes."""
  followups = ((2,), (0, 4)) * 4 + ((3,),)
  spec = RolloutSpec(
    prompt_tokens=3, turn_tokens=(3,) * 10, followup_ids=followups, end_of_turn_ids=(EOT,)
  )
  e = sample(spec, slots=slots)
  prompts = [row[is_token == 1] for row, is_token in zip(PROMPT, IS_PROMPT, strict=True)]
  assert real(e) == [counted(prompt.tolist(), spec) for prompt in prompts]
  assert e.is_truncated[0].tolist() == [False, *[True, False] * 4, True]
  assert e.turn.max() == 10


def test_three_turns():
  spec = RolloutSpec(
    prompt_tokens=3, turn_tokens=(2, 3, 2), followup_ids=((4,), (8, 5)), end_of_turn_ids=(EOT, 6)
  )
  e = sample(spec)
  # 6 ends a turn too; the needed end of turn is always the first of the ids, 7.
  assert real(e) == [
    [5, 6, 4, 5, 6, 8, 5, 6],
    [2, 3, 4, 7, 4, 5, 6, 8, 5, 6],
    [3, 6, 7, 4, 5, 6, 8, 5, 6],
  ]
  assert e.is_truncated.tolist() == [[False] * 3, [True, False, False], [False] * 3]
  assert [(e.turn == k).sum() for k in (1, 2, 3)] == [1 + 2 + 1, 6, 3]


def test_one_turn():
  spec = RolloutSpec(prompt_tokens=3, turn_tokens=(4,), followup_ids=(), end_of_turn_ids=(EOT,))
  e = sample(spec)
  assert real(e) == [[5, 6, 7], [2, 3, 4, 5, 6], [3, 6, 7]]
  assert e.is_truncated.tolist() == [[False], [True], [False]]


def test_forced_turns():
  """Forced answers are context; a cut one gets an end of turn, an empty one too."""
  spec = RolloutSpec(
    prompt_tokens=3, turn_tokens=(2, 4), followup_ids=((4,),), end_of_turn_ids=(EOT,)
  )
  tokens = np.array([[9, 7], [9, 9], [0, 0]], np.int32)
  is_token = np.array([[1, 1], [1, 1], [0, 0]], bool)
  e = sample(spec, forced={0: (tokens, is_token)})
  assert real(e) == [
    [5, 9, 7, 4, 5, 6, 7],
    [2, 9, 9, 7, 4, 5, 6, 7],
    [3, 6, 7, 4, 5, 6, 7],
  ]
  assert e.is_truncated.tolist() == [[False, False], [True, False], [True, False]]
  np.testing.assert_array_equal(e.is_sampled, e.turn == 2)
