"""Translates the config.json of a Hugging Face folder to a `DecoderConfig`, and back.

A file may hold settings that this package's decoder does not know. Every key is read, is known to
leave the mathematics alone, or is an error: a model that loads is the model that was published.
What a file leaves out has the value that `transformers` gives it.
"""

from typing import Any

from score_jax.model.decoder_config import DecoderConfig

_REQUIRED = object()
_GEMMA = {
  'activation': 'gelu_tanh',
  'post_norms': True,
  'norm_plus_one': True,
  'scale_embedding': True,
}
# By model_type: the choices that it stands for.
FAMILIES: dict[str, dict[str, Any]] = {
  'llama': {},
  'qwen2': {'qkv_bias': True},
  'qwen3': {'qk_norm': True},
  'gemma2': _GEMMA,
  'gemma3_text': _GEMMA | {'qk_norm': True},
}
ARCHITECTURES = {
  'llama': 'LlamaForCausalLM',
  'qwen2': 'Qwen2ForCausalLM',
  'qwen3': 'Qwen3ForCausalLM',
  'gemma2': 'Gemma2ForCausalLM',
  'gemma3_text': 'Gemma3ForCausalLM',
}
# What published files leave out.
_DEFAULTS: dict[str, dict[str, Any]] = {
  'llama': {'num_key_value_heads': None},
  'qwen2': {},
  'qwen3': {'head_dim': 128},
  'gemma2': {
    'head_dim': 256,
    'attn_logit_softcapping': 50.0,
    'final_logit_softcapping': 30.0,
    'sliding_window': 4096,
  },
  'gemma3_text': {
    'vocab_size': 262_208,
    'num_attention_heads': 8,
    'num_key_value_heads': 4,
    'head_dim': 256,
    'sliding_window': 4096,
    'rope_theta': 1_000_000.0,
  },
}
# Says nothing of what is computed, whatever its value.
_HARMLESS = frozenset(
  """
  _name_or_path transformers_version torch_dtype dtype use_cache cache_implementation
  bos_token_id eos_token_id pad_token_id initializer_range max_position_embeddings pretraining_tp
  is_llama_config transformers.js_config unsloth_fixed unsloth_version _attn_implementation
  attn_implementation _attn_implementation_autoset output_attentions output_hidden_states
  return_dict
  """.split()
)
# Leaves the mathematics alone with one of these values only.
_NEUTRAL: dict[str, tuple] = {
  'attention_bias': (False, None),
  'mlp_bias': (False, None),
  'attention_dropout': (0, None),
  'rope_interleaved': (False,),
  'use_bidirectional_attention': (False, None),
  'partial_rotary_factor': (1, None),
  'quantization_config': (None,),
  'is_decoder': (False, None),
  'is_encoder_decoder': (False, None),
  'add_cross_attention': (False, None),
}
_ACTIVATIONS = {'silu': 'silu', 'gelu_pytorch_tanh': 'gelu_tanh'}


class _Fields:
  """The keys of a JSON object, taken out one by one; errors name the file and the key."""

  def __init__(self, fields: dict[str, Any], where: str, defaults: dict[str, Any] | None = None):
    self.left, self.where = dict(fields), where
    self.defaults = defaults or {}

  def take(self, key: str, default: Any = _REQUIRED) -> Any:
    default = self.defaults.get(key, default)
    if key not in self.left and default is _REQUIRED:
      raise ValueError(f'{self.where}: {key} is missing')
    return self.left.pop(key, default)

  def number(self, key: str, default: Any = _REQUIRED) -> Any:
    """A positive number; null gives `default`."""
    value = self.take(key, default)
    if value is None and default is not _REQUIRED:
      value = default
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
      raise ValueError(f'{self.where}: {key}={value!r} is no positive number')
    return value

  def size(self, key: str, default: Any = _REQUIRED) -> int:
    value = self.number(key, default)
    if value != int(value):
      raise ValueError(f'{self.where}: {key}={value!r} is no whole number')
    return int(value)

  def flag(self, key: str, default: bool) -> bool:
    value = self.take(key, default)
    if not isinstance(value, bool):
      raise ValueError(f'{self.where}: {key}={value!r} is neither true nor false')
    return value

  def finish(self) -> None:
    """Refuses every key that is left and could matter."""
    for key, value in self.left.items():
      if key in _HARMLESS:
        continue
      if key not in _NEUTRAL:
        raise ValueError(f'{self.where}: {key}={value!r} is unknown here, and could matter')
      if value not in _NEUTRAL[key]:
        raise ValueError(
          f'{self.where}: {key}={value!r} changes what the model computes; the decoder supports '
          f'only {_NEUTRAL[key][0]!r}'
        )


def parse_config(fields: dict[str, Any], where: str) -> DecoderConfig:
  """Reads the architecture from the fields of a config.json.

  Args:
    fields: the parsed file.
    where: its path, for errors.

  Returns:
    The configuration, in float32. Of a Gemma 3 with a vision tower, that of its text model.

  Raises:
    ValueError: naming the key: a model type that is not supported, a value that is missing or makes
      no sense, or a key that could change what the model computes and is not known.
  """
  if fields.get('model_type') == 'gemma3' and isinstance(fields.get('text_config'), dict):
    # What surrounds the text model concerns images, but for this.
    outer = {
      'model_type': 'gemma3_text',
      'tie_word_embeddings': fields.get('tie_word_embeddings', True),
    }
    return parse_config(outer | fields['text_config'], where)
  model_type = fields.get('model_type')
  if model_type not in FAMILIES:
    told = 'model_type is missing, it' if model_type is None else f'model_type={model_type!r}'
    raise ValueError(f'{where}: {told} must be one of {", ".join(FAMILIES)}')
  f = _Fields(fields, where, _DEFAULTS[model_type])
  f.take('model_type')
  architectures, name = f.take('architectures', None), ARCHITECTURES[model_type]
  if architectures not in (None, [name]):
    raise ValueError(f'{where}: architectures={architectures!r}; only [{name!r}] has a decoder')
  is_gemma = model_type.startswith('gemma')
  num_heads, embed_dim = f.size('num_attention_heads'), f.size('hidden_size')
  sizes = {
    'vocab_size': f.size('vocab_size'),
    'num_layers': f.size('num_hidden_layers'),
    'embed_dim': embed_dim,
    'mlp_dim': f.size('intermediate_size'),
    'num_heads': num_heads,
    'num_kv_heads': f.take('num_key_value_heads') or num_heads,
    'norm_eps': float(f.number('rms_norm_eps', 1e-6)),
    'tie_embeddings': f.flag('tie_word_embeddings', is_gemma),
  }
  head_dim = f.take('head_dim', None) or embed_dim / num_heads
  if head_dim != int(head_dim):
    raise ValueError(
      f'{where}: hidden_size={embed_dim} is no multiple of num_attention_heads={num_heads}, and '
      'there is no head_dim'
    )
  sizes['head_dim'] = int(head_dim)
  values = FAMILIES[model_type] | sizes | _activation(f, is_gemma) | _caps(f, model_type)
  values |= _windows(f, model_type, sizes['num_layers'])
  values |= _rope(f, model_type, values)
  f.finish()
  try:
    return DecoderConfig(**values)
  except (ValueError, TypeError) as error:
    raise ValueError(f'{where}: {error}') from error


def _activation(f: _Fields, is_gemma: bool) -> dict[str, Any]:
  """Gemma has it under another name, and says it under the common one too."""
  name = f.take('hidden_act', 'gelu_pytorch_tanh' if is_gemma else 'silu')
  if is_gemma:
    name = f.take('hidden_activation', 'gelu_pytorch_tanh')
  if name not in _ACTIVATIONS:
    raise ValueError(
      f'{f.where}: the activation {name!r} is none of {", ".join(sorted(_ACTIVATIONS))}'
    )
  return {'activation': _ACTIVATIONS[name]}


def _caps(f: _Fields, model_type: str) -> dict[str, Any]:
  """Soft-caps and what attention logits are divided by."""
  if not model_type.startswith('gemma'):
    return {}
  attn_softcap = f.take('attn_logit_softcapping', None)
  if attn_softcap and model_type == 'gemma3_text':
    # Read and then not used by the reference implementation: no telling what is meant.
    raise ValueError(f'{f.where}: attn_logit_softcapping={attn_softcap!r} in a {model_type}')
  return {
    'attn_softcap': float(attn_softcap or 0),
    'logit_softcap': float(f.take('final_logit_softcapping', None) or 0),
    'query_pre_attn_scalar': float(f.number('query_pre_attn_scalar', 256)),
  }


def _windows(f: _Fields, model_type: str, num_layers: int) -> dict[str, Any]:
  """The sliding window, and the layers that have it."""
  if model_type == 'llama':
    if f.take('sliding_window', None) is not None:
      raise ValueError(f'{f.where}: a sliding_window in a {model_type} is not supported')
    return {}
  window, types = f.take('sliding_window', None), f.take('layer_types', None)
  if model_type in ('qwen2', 'qwen3'):
    first = f.take('max_window_layers', 28)
    if not f.flag('use_sliding_window', False):
      window = None
    is_windowed = [window is not None and i >= first for i in range(num_layers)]
  else:
    period = 2
    if model_type == 'gemma3_text':
      period = f.take('_sliding_window_pattern', f.take('sliding_window_pattern', 6))
      f.left.pop('sliding_window_pattern', None)
    same = f.take('sliding_window_size', window)
    if same != window:
      raise ValueError(f'{f.where}: sliding_window={window!r}, but sliding_window_size={same!r}')
    is_windowed = [(i + 1) % period != 0 for i in range(num_layers)]
  if types is not None:
    unknown = sorted(set(types) - {'sliding_attention', 'full_attention'})
    if unknown or len(types) != num_layers:
      raise ValueError(
        f'{f.where}: layer_types has {len(types)} entries for {num_layers} layers, and {unknown} '
        "besides 'sliding_attention' and 'full_attention'"
      )
    is_windowed = [kind == 'sliding_attention' for kind in types]
  if not any(is_windowed):
    return {}
  return {'window': window or 0, 'window_pattern': tuple(is_windowed)}


def _rope(f: _Fields, model_type: str, values: dict[str, Any]) -> dict[str, Any]:
  """Rotary bases and scaling: `rope_parameters`, or the keys that older files have."""
  theta, scaling = f.take('rope_theta', 10_000.0), f.take('rope_scaling', None)
  parameters = f.take('rope_parameters', None)
  if model_type != 'gemma3_text':
    return _scaled({'rope_theta': theta} | (parameters or {}) | (scaling or {}), f.where)
  near = {'rope_theta': f.take('rope_local_base_freq', 10_000.0)}
  far = {'rope_theta': theta} | (scaling or {})
  if parameters is not None:
    if unknown := sorted(set(parameters) - {'full_attention', 'sliding_attention'}):
      raise ValueError(f'{f.where}: rope_parameters has {unknown}, which no kind of layer is')
    near = near | (parameters.get('sliding_attention') or {})
    far = far | (parameters.get('full_attention') or {})
  far, near = _scaled(far, f.where), _scaled(near, f.where)
  if set(near) != {'rope_base'}:
    raise ValueError(f'{f.where}: rope_parameters stretch sliding_attention: not supported')
  if near != far and values.get('window'):
    far['window_rope_base'] = near['rope_base']
  return far


def _scaled(parameters: dict[str, Any], where: str) -> dict[str, Any]:
  """One set of rotary parameters."""
  f = _Fields(parameters, f'{where}: RoPE')
  kind = f.take('rope_type', f.take('type', None)) or 'default'
  f.left.pop('type', None)
  values = {'rope_base': float(f.number('rope_theta'))}
  if kind not in ('default', 'linear', 'llama3'):
    raise ValueError(f"{where}: rope_type={kind!r} is none of 'default', 'linear', 'llama3'")
  if kind != 'default':
    values['rope_factor'] = float(f.number('factor'))
  if kind == 'llama3':
    names = ('low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings')
    values['rope_bands'] = tuple(float(f.number(name)) for name in names)
  f.finish()
  return values
