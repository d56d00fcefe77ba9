"""config.json: published files are the presets, and nothing that could matter is overlooked."""

import dataclasses

import pytest

from score_jax.formats.hf_config import parse_config
from score_jax.formats.hf_export import config_fields
from score_jax.model.presets import PRESETS

# In the form of the published files, keys and values as far as they are known here.
LLAMA_3_2_1B = {
  'architectures': ['LlamaForCausalLM'],
  'attention_bias': False,
  'attention_dropout': 0.0,
  'bos_token_id': 128000,
  'eos_token_id': [128001, 128008, 128009],
  'head_dim': 64,
  'hidden_act': 'silu',
  'hidden_size': 2048,
  'initializer_range': 0.02,
  'intermediate_size': 8192,
  'max_position_embeddings': 131072,
  'mlp_bias': False,
  'model_type': 'llama',
  'num_attention_heads': 32,
  'num_hidden_layers': 16,
  'num_key_value_heads': 8,
  'pretraining_tp': 1,
  'rms_norm_eps': 1e-05,
  'rope_scaling': {
    'factor': 32.0,
    'high_freq_factor': 4.0,
    'low_freq_factor': 1.0,
    'original_max_position_embeddings': 8192,
    'rope_type': 'llama3',
  },
  'rope_theta': 500000.0,
  'tie_word_embeddings': True,
  'torch_dtype': 'bfloat16',
  'transformers_version': '4.45.0.dev0',
  'use_cache': True,
  'vocab_size': 128256,
}
QWEN_2_5_7B = {
  'architectures': ['Qwen2ForCausalLM'],
  'attention_dropout': 0.0,
  'bos_token_id': 151643,
  'eos_token_id': 151645,
  'hidden_act': 'silu',
  'hidden_size': 3584,
  'initializer_range': 0.02,
  'intermediate_size': 18944,
  'max_position_embeddings': 32768,
  'max_window_layers': 28,
  'model_type': 'qwen2',
  'num_attention_heads': 28,
  'num_hidden_layers': 28,
  'num_key_value_heads': 4,
  'rms_norm_eps': 1e-06,
  'rope_theta': 1000000.0,
  'sliding_window': 131072,
  'tie_word_embeddings': False,
  'torch_dtype': 'bfloat16',
  'transformers_version': '4.43.1',
  'use_cache': True,
  'use_sliding_window': False,
  'vocab_size': 152064,
}
QWEN_3_4B = {
  'architectures': ['Qwen3ForCausalLM'],
  'attention_bias': False,
  'attention_dropout': 0.0,
  'bos_token_id': 151643,
  'eos_token_id': 151645,
  'head_dim': 128,
  'hidden_act': 'silu',
  'hidden_size': 2560,
  'initializer_range': 0.02,
  'intermediate_size': 9728,
  'max_position_embeddings': 40960,
  'max_window_layers': 36,
  'model_type': 'qwen3',
  'num_attention_heads': 32,
  'num_hidden_layers': 36,
  'num_key_value_heads': 8,
  'rms_norm_eps': 1e-06,
  'rope_scaling': None,
  'rope_theta': 1000000,
  'sliding_window': None,
  'tie_word_embeddings': True,
  'torch_dtype': 'bfloat16',
  'transformers_version': '4.51.0',
  'use_cache': True,
  'use_sliding_window': False,
  'vocab_size': 151936,
}
GEMMA_2_2B = {
  'architectures': ['Gemma2ForCausalLM'],
  'attention_bias': False,
  'attention_dropout': 0.0,
  'attn_logit_softcapping': 50.0,
  'bos_token_id': 2,
  'cache_implementation': 'hybrid',
  'eos_token_id': 1,
  'final_logit_softcapping': 30.0,
  'head_dim': 256,
  'hidden_act': 'gelu_pytorch_tanh',
  'hidden_activation': 'gelu_pytorch_tanh',
  'hidden_size': 2304,
  'initializer_range': 0.02,
  'intermediate_size': 9216,
  'max_position_embeddings': 8192,
  'model_type': 'gemma2',
  'num_attention_heads': 8,
  'num_hidden_layers': 26,
  'num_key_value_heads': 4,
  'pad_token_id': 0,
  'query_pre_attn_scalar': 256,
  'rms_norm_eps': 1e-06,
  'rope_theta': 10000.0,
  'sliding_window': 4096,
  'torch_dtype': 'float32',
  'transformers_version': '4.42.4',
  'use_cache': True,
  'vocab_size': 256000,
}
GEMMA_3_1B = {
  'architectures': ['Gemma3ForCausalLM'],
  'attention_bias': False,
  'attention_dropout': 0.0,
  'attn_logit_softcapping': None,
  'bos_token_id': 2,
  'cache_implementation': 'hybrid',
  'eos_token_id': [1, 106],
  'final_logit_softcapping': None,
  'head_dim': 256,
  'hidden_activation': 'gelu_pytorch_tanh',
  'hidden_size': 1152,
  'initializer_range': 0.02,
  'intermediate_size': 6912,
  'max_position_embeddings': 32768,
  'model_type': 'gemma3_text',
  'num_attention_heads': 4,
  'num_hidden_layers': 26,
  'num_key_value_heads': 1,
  'pad_token_id': 0,
  'query_pre_attn_scalar': 256,
  'rms_norm_eps': 1e-06,
  'rope_local_base_freq': 10000,
  'rope_scaling': None,
  'rope_theta': 1000000,
  'sliding_window': 512,
  'sliding_window_pattern': 6,
  'torch_dtype': 'bfloat16',
  'transformers_version': '4.50.0.dev0',
  'use_cache': True,
  'vocab_size': 262144,
}
GEMMA_3_4B = {
  'architectures': ['Gemma3ForConditionalGeneration'],
  'boi_token_index': 255999,
  'eoi_token_index': 256000,
  'eos_token_id': [1, 106],
  'image_token_index': 262144,
  'initializer_range': 0.02,
  'mm_tokens_per_image': 256,
  'model_type': 'gemma3',
  'text_config': {
    'hidden_size': 2560,
    'intermediate_size': 10240,
    'model_type': 'gemma3_text',
    'num_hidden_layers': 34,
    'rope_scaling': {'factor': 8.0, 'rope_type': 'linear'},
    'sliding_window': 1024,
  },
  'torch_dtype': 'bfloat16',
  'vision_config': {'hidden_size': 1152, 'model_type': 'siglip_vision_model'},
}
FILES = {
  'llama3_2_1b': LLAMA_3_2_1B,
  'qwen2_5_7b': QWEN_2_5_7B,
  'qwen3_4b': QWEN_3_4B,
  'gemma2_2b': GEMMA_2_2B,
  'gemma3_1b': GEMMA_3_1B,
  'gemma3_4b': GEMMA_3_4B,
}


@pytest.mark.parametrize('name', FILES)
def test_published_files_are_the_presets(name):
  assert parse_config(FILES[name], 'config.json') == PRESETS[name]


@pytest.mark.parametrize('name', PRESETS)
def test_fields_are_read_back(name):
  """Also where how it is computed is another matter, which no file says."""
  config = dataclasses.replace(PRESETS[name], dtype='bfloat16', remat='block', scan_unroll=2)
  assert parse_config(config_fields(config), 'config.json') == PRESETS[name]


@pytest.mark.parametrize(
  ('name', 'changes', 'complaint'),
  [
    ('llama3_2_1b', {'model_type': 'mamba'}, "model_type='mamba' must be one of"),
    ('llama3_2_1b', {'model_type': None}, 'model_type is missing, it must be one of'),
    ('llama3_2_1b', {'new_idea': 1.5}, 'new_idea=1.5 is unknown here, and could matter'),
    ('llama3_2_1b', {'attention_bias': True}, 'attention_bias=True changes what'),
    ('llama3_2_1b', {'mlp_bias': True}, 'mlp_bias=True changes what'),
    ('llama3_2_1b', {'attention_dropout': 0.1}, 'attention_dropout=0.1 changes what'),
    ('llama3_2_1b', {'partial_rotary_factor': 0.5}, 'partial_rotary_factor=0.5 changes what'),
    ('llama3_2_1b', {'quantization_config': {'bits': 4}}, 'quantization_config=.* changes what'),
    ('llama3_2_1b', {'auto_map': {}}, 'auto_map={} is unknown'),
    ('llama3_2_1b', {'sliding_window': 64}, 'a sliding_window in a llama'),
    ('llama3_2_1b', {'layer_types': ['full_attention']}, 'layer_types=.* is unknown'),
    ('llama3_2_1b', {'hidden_act': 'relu'}, "activation 'relu' is none of"),
    ('llama3_2_1b', {'architectures': ['LlamaForTokenClassification']}, 'architectures='),
    ('llama3_2_1b', {'hidden_size': 'big'}, "hidden_size='big' is no positive number"),
    ('llama3_2_1b', {'hidden_size': 0}, 'hidden_size=0 is no positive number'),
    ('llama3_2_1b', {'hidden_size': 3.5}, 'hidden_size=3.5 is no whole number'),
    ('llama3_2_1b', {'head_dim': None, 'hidden_size': 2050}, 'hidden_size=2050 is no multiple'),
    ('llama3_2_1b', {'num_key_value_heads': 5}, 'num_heads=32 is not a multiple of num_kv_heads=5'),
    ('llama3_2_1b', {'tie_word_embeddings': 1}, 'tie_word_embeddings=1 is neither'),
    ('llama3_2_1b', {'rope_scaling': {'rope_type': 'yarn', 'factor': 4.0}}, "rope_type='yarn'"),
    ('llama3_2_1b', {'rope_scaling': {'type': 'dynamic', 'factor': 4.0}}, "rope_type='dynamic'"),
    ('llama3_2_1b', {'rope_scaling': {'rope_type': 'linear'}}, 'RoPE: factor is missing'),
    (
      'llama3_2_1b',
      {'rope_scaling': {'rope_type': 'llama3', 'factor': 8.0}},
      'RoPE: low_freq_factor is missing',
    ),
    (
      'llama3_2_1b',
      {'rope_scaling': {'rope_type': 'linear', 'factor': 2.0, 'mscale': 0.7}},
      'RoPE: mscale=0.7 is unknown',
    ),
    (
      'qwen2_5_7b',
      {'layer_types': ['chunked_attention'] * 28},
      "layer_types .*'chunked_attention'",
    ),
    ('qwen2_5_7b', {'layer_types': ['full_attention']}, 'layer_types has 1 entries for 28 layers'),
    ('qwen2_5_7b', {'layer_types': ['sliding_attention'] * 28}, 'window=0 with window_pattern'),
    ('qwen3_4b', {'rope_parameters': {'mrope_section': [1]}}, 'mrope_section=.* is unknown'),
    (
      'gemma2_2b',
      {'use_bidirectional_attention': True},
      'use_bidirectional_attention=True changes',
    ),
    ('gemma2_2b', {'sliding_window_size': 512}, 'sliding_window=4096, but sliding_window_size=512'),
    ('gemma2_2b', {'hidden_activation': 'gelu'}, "activation 'gelu' is none of"),
    ('gemma3_1b', {'attn_logit_softcapping': 50.0}, 'attn_logit_softcapping=50.0 in a gemma3_text'),
    (
      'gemma3_1b',
      {'rope_parameters': {'sliding_attention': {'rope_type': 'linear', 'factor': 2.0}}},
      'stretch sliding_attention',
    ),
    (
      'gemma3_1b',
      {'rope_parameters': {'rope_theta': 1.0}},
      r"rope_parameters has \['rope_theta'\]",
    ),
  ],
)
def test_what_could_matter_is_refused(name, changes, complaint):
  with pytest.raises(ValueError, match=f'x/config.json: .*{complaint}'):
    parse_config(FILES[name] | changes, 'x/config.json')


@pytest.mark.parametrize('key', ['hidden_size', 'num_hidden_layers', 'intermediate_size'])
def test_what_is_missing_is_named(key):
  fields = {k: v for k, v in GEMMA_2_2B.items() if k != key}
  with pytest.raises(ValueError, match=f'{key} is missing'):
    parse_config(fields, 'config.json')


def test_new_and_old_names_of_rotary_parameters():
  old = parse_config(GEMMA_3_4B['text_config'], 'x')
  text = {k: v for k, v in GEMMA_3_4B['text_config'].items() if k != 'rope_scaling'}
  far = {'rope_type': 'linear', 'factor': 8.0, 'rope_theta': 1e6}
  near = {'rope_type': 'default', 'rope_theta': 1e4}
  both = {'full_attention': far, 'sliding_attention': near}
  assert parse_config(text | {'rope_parameters': both}, 'x') == old == PRESETS['gemma3_4b']
  plain = {k: v for k, v in LLAMA_3_2_1B.items() if k not in ('rope_scaling', 'rope_theta')}
  rope = LLAMA_3_2_1B['rope_scaling'] | {'rope_theta': 500000.0}
  assert parse_config(plain | {'rope_parameters': rope}, 'x') == PRESETS['llama3_2_1b']


def test_windows_of_qwen_begin_at_a_layer():
  windowed = {'use_sliding_window': True, 'sliding_window': 64, 'max_window_layers': 26}
  config = parse_config(QWEN_2_5_7B | windowed, 'x')
  assert config.window == 64 and config.is_windowed == (False,) * 26 + (True, True)
  assert parse_config(config_fields(config), 'x') == config
