"""A decoder's choices: which make sense, and which are the same."""

import dataclasses

import pytest
from small_models import tiny_decoder

from score_jax.model.decoder_config import DecoderConfig

PLAIN = tiny_decoder()


@pytest.mark.parametrize(
  ('changes', 'complaint'),
  [
    (dict(window=4), 'window=4 with window_pattern='),
    (dict(window_pattern=(True, False)), 'window=0 with window_pattern='),
    (dict(window_rope_base=5.0), 'no layer has a window'),
    (dict(rope_bands=(4.0, 1.0, 8.0)), 'rope_bands='),
    (dict(rope_fraction=0.3), 'rope_fraction=0.3'),
    (dict(rope_fraction=1.5), 'rope_fraction=1.5'),
    (dict(activation='relu'), "activation='relu'"),
    (dict(attn_softcap=-1.0), 'attn_softcap'),
    (dict(rope_factor=0.0), 'rope_factor=0.0'),
    (dict(num_kv_heads=3), 'num_kv_heads'),
    (dict(head_dim=5), 'head_dim'),
    (dict(remat='everything'), 'remat'),
  ],
)
def test_choices_that_make_no_sense(changes, complaint):
  with pytest.raises(ValueError, match=complaint):
    dataclasses.replace(PLAIN, **changes)


def test_equal_models_have_equal_configs():
  long = dataclasses.replace(PLAIN, window=2, window_pattern=[True, False, True])
  assert long == dataclasses.replace(PLAIN, window=2, window_pattern=(True, False))
  assert long.is_windowed == (True, False, True)
  assert dataclasses.replace(PLAIN, query_pre_attn_scalar=8.0) == PLAIN
  again = DecoderConfig(**dataclasses.asdict(long) | {'window_pattern': [1, 0]})
  assert again == long and hash(again) == hash(long)
