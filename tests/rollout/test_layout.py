"""The static shape of an episode."""

import pytest

from score_jax.rollout.layout import RolloutSpec


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ({'followup_ids': ()}, '2 turns need 1 instructions, got 0'),
    ({'turn_tokens': (4, 0)}, 'every budget must be at least 1'),
    ({'prompt_tokens': 0}, 'every budget must be at least 1'),
    ({'end_of_turn_ids': ()}, 'end_of_turn_ids not empty'),
  ],
)
def test_bad_spec_is_refused(change, words):
  fields = {
    'prompt_tokens': 3,
    'turn_tokens': (4, 4),
    'followup_ids': ((4,),),
    'end_of_turn_ids': (7,),
  }
  with pytest.raises(ValueError, match=words):
    RolloutSpec(**fields | change)
