"""The published models: their sizes, and a name that is none of theirs."""

import math

import jax
import pytest

from score_jax.model.decoder import abstract_params
from score_jax.model.presets import PRESETS, preset

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
