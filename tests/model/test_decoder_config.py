"""A decoder's choices: which make sense, which are the same, which the published models make."""

import dataclasses
import math

import jax
import pytest
from small_models import tiny_decoder

from score_jax.model.decoder import abstract_params
from score_jax.model.decoder_config import DecoderConfig
from score_jax.model.presets import PRESETS, preset

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


# Parameters of the published models, as the Hugging Face hub counts them.
PUBLISHED = {
  'smollm2_135m': 134_515_008,
  'smollm2_360m': 361_821_120,
  'smollm2_1_7b': 1_711_376_384,
  'llama3_8b': 8_030_261_248,
  'llama3_1_8b': 8_030_261_248,
  'llama3_2_1b': 1_235_814_400,
  'llama3_2_3b': 3_212_749_824,
  'qwen2_5_0_5b': 494_032_768,
  'qwen2_5_1_5b': 1_543_714_304,
  'qwen2_5_3b': 3_085_938_688,
  'qwen2_5_7b': 7_615_616_512,
  'qwen3_0_6b': 596_049_920,
  'qwen3_1_7b': 1_720_574_976,
  'qwen3_4b': 4_022_468_096,
  'qwen3_8b': 8_190_735_360,
  'gemma2_2b': 2_614_341_888,
  'gemma2_9b': 9_241_705_984,
  'gemma2_27b': 27_227_128_320,
  'gemma3_1b': 999_885_952,
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_presets_have_the_published_size(name):
  shapes, axes = abstract_params(preset(name))
  assert sum(math.prod(x.shape) for x in jax.tree.leaves(shapes)) == PUBLISHED[name]
  ranks = jax.tree.map(len, axes, is_leaf=lambda x: isinstance(x, tuple))
  assert ranks == jax.tree.map(lambda x: len(x.shape), shapes)


def test_presets_that_see_images_besides_have_no_published_count():
  assert PRESETS.keys() - PUBLISHED.keys() == {'gemma3_4b', 'gemma3_12b', 'gemma3_27b'}
  with pytest.raises(ValueError, match="'gemma4_1b' is none of"):
    preset('gemma4_1b')
