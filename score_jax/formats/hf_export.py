"""Writes a Hugging Face folder: what `transformers` and inference servers load.

    config.json, generation_config.json    architecture, ends of turn
    model.safetensors, or shards and an index
    the tokenizer's files                  as they came

The folder appears under its name when it is whole, and not before.
"""

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from score_jax.core.paths import Path
from score_jax.core.storage import writing
from score_jax.formats.axes import letter_sizes, shape_in_file, to_theirs
from score_jax.formats.hf_config import ARCHITECTURES, FAMILIES, parse_config
from score_jax.formats.hf_folder import INDEX, SINGLE, tensor_names
from score_jax.formats.safetensors_file import write_file
from score_jax.model.decoder_config import DecoderConfig

MAX_FILE_BYTES = 5_000_000_000


def config_fields(config: DecoderConfig) -> dict[str, Any]:
  """Describes a decoder as config.json does, in the keys that old and new readers know.

  Args:
    config: the architecture.

  Returns:
    The fields; `parse_config` makes `config` of them, but for how it is computed.

  Raises:
    ValueError: if no architecture of `transformers` computes this, naming what stands in the way.
  """
  plain = dataclasses.replace(
    config, dtype='float32', param_dtype='float32', remat='none', scan_unroll=1, attention='plain'
  )
  nearest: list[str] | None = None
  for model_type in FAMILIES:
    fields = _fields_of(plain, model_type)
    found = parse_config(fields, model_type)
    differing = [
      f'{f.name}={getattr(plain, f.name)!r}'
      for f in dataclasses.fields(plain)
      if getattr(plain, f.name) != getattr(found, f.name)
    ]
    if not differing:
      return fields
    if nearest is None or len(differing) < len(nearest):
      nearest = differing
  raise ValueError(
    f'no architecture of {sorted(FAMILIES)} computes what this decoder does: {", ".join(nearest)}'
  )


def _fields_of(c: DecoderConfig, model_type: str) -> dict[str, Any]:
  """The fields of one model type; what it cannot say is left out."""
  fields = {
    'architectures': [ARCHITECTURES[model_type]],
    'model_type': model_type,
    'vocab_size': c.vocab_size,
    'hidden_size': c.embed_dim,
    'intermediate_size': c.mlp_dim,
    'num_hidden_layers': c.num_layers,
    'num_attention_heads': c.num_heads,
    'num_key_value_heads': c.num_kv_heads,
    'head_dim': c.head_dim,
    'rms_norm_eps': c.norm_eps,
    'tie_word_embeddings': c.tie_embeddings,
    'rope_theta': c.rope_base,
    'rope_scaling': _rope_scaling(c),
  }
  scalar = c.query_pre_attn_scalar or c.head_dim  # `transformers` insists on a whole number
  activation = 'silu' if c.activation == 'silu' else 'gelu_pytorch_tanh'
  types = ['sliding_attention' if w else 'full_attention' for w in c.is_windowed]
  if model_type.startswith('gemma'):
    fields |= {
      'hidden_activation': activation,
      'query_pre_attn_scalar': int(scalar) if scalar == int(scalar) else scalar,
      'final_logit_softcapping': c.logit_softcap or None,
      'attn_logit_softcapping': (c.attn_softcap if model_type == 'gemma2' else 0) or None,
      'sliding_window': c.window or None,
      'layer_types': types,
    }
  else:
    fields['hidden_act'] = activation
  if model_type == 'gemma3_text':
    fields['rope_local_base_freq'] = c.window_rope_base or c.rope_base
  if model_type in ('qwen2', 'qwen3'):
    first = c.is_windowed.index(True) if c.window else c.num_layers
    fields |= {
      'use_sliding_window': bool(c.window),
      'sliding_window': c.window or None,
      'max_window_layers': first,
      'layer_types': types,
    }
  return fields


def _rope_scaling(c: DecoderConfig) -> dict[str, Any] | None:
  if c.rope_bands:
    low, high, length = c.rope_bands
    return {
      'rope_type': 'llama3',
      'factor': c.rope_factor,
      'low_freq_factor': low,
      'high_freq_factor': high,
      'original_max_position_embeddings': int(length),
    }
  return {'rope_type': 'linear', 'factor': c.rope_factor} if c.rope_factor != 1 else None


def write_folder(
  folder: epath.PathLike,
  config: DecoderConfig,
  params: Mapping[str, Any],
  dtype: Any = np.float32,
  more_fields: Mapping[str, Any] | None = None,
  generation: Mapping[str, Any] | None = None,
  files: Mapping[str, bytes] | None = None,
  max_file_bytes: int = MAX_FILE_BYTES,
) -> None:
  """Writes a model so that other tools can read it.

  Parameters come to the host one at a time.

  Args:
    folder: a local folder that is not there yet, or is empty.
    config: the architecture.
    params: nested dicts of arrays, on devices or the host.
    dtype: type of the file: float32, bfloat16 or float16. A parameter of another type is rounded.
    more_fields: more of config.json, such as the ids of special tokens.
    generation: of generation_config.json; without it, none is written.
    files: other files, such as the tokenizer's, by name.
    max_file_bytes: a weights file is closed before it grows beyond this.

  Raises:
    ValueError: if the folder holds something, or the architecture has no name there.
  """
  dtype = np.dtype(dtype)
  fields = config_fields(config) | dict(more_fields or {}) | {'torch_dtype': dtype.name}
  with appearing(folder) as draft:
    for name, data in (files or {}).items():
      (draft / name).write_bytes(data)
    _write_json(draft / 'config.json', fields)
    if generation:
      _write_json(draft / 'generation_config.json', generation)
    _write_weights(draft, config, params, dtype, max_file_bytes)


def check_new(folder: epath.PathLike) -> None:
  """Refuses a folder that cannot appear; arguments and errors as for `appearing`."""
  folder = epath.Path(folder)
  if '://' in str(folder):
    raise ValueError(f'{folder}: a folder in a bucket cannot appear at once; export to a disk')
  if folder.exists() and (not folder.is_dir() or list(folder.iterdir())):
    raise ValueError(f'{folder} is there already; export to a new folder')


@contextlib.contextmanager
def appearing(folder: epath.PathLike) -> Iterator[epath.Path]:
  """Makes a folder that appears under its name when it is whole.

  Args:
    folder: a local folder that is not there yet, or is empty.

  Yields:
    The folder to write to, beside it; it is renamed at the end. What an error leaves is removed;
    what a killed process left is replaced.

  Raises:
    ValueError: if the folder holds something, or lies in a bucket.
  """
  check_new(folder)
  folder = epath.Path(folder).absolute()
  draft = folder.parent / f'.{folder.name}.tmp'
  if draft.exists():
    draft.rmtree()
  try:
    with writing(folder):
      draft.mkdir(parents=True)
      yield draft
      if folder.exists():
        folder.rmdir()
      draft.rename(folder)
  except BaseException:
    if draft.exists():
      draft.rmtree()
    raise


def _write_json(path: epath.Path, fields: Mapping[str, Any]) -> None:
  path.write_text(json.dumps(fields, indent=2) + '\n')


def _write_weights(draft, config, params, dtype, max_file_bytes) -> None:
  """Writes one file, or several and their index."""
  names, sizes = tensor_names(config), letter_sizes(config)
  shapes: dict[str, tuple[int, ...]] = {}
  for path, (name, layout) in names.items():
    layers = range(config.num_layers) if path[0] == 'layers' else [None]
    shapes |= {name.format(i): shape_in_file(layout, sizes) for i in layers}
  shards: list[dict[str, tuple[int, ...]]] = [{}]
  left_bytes = max_file_bytes
  for name, shape in shapes.items():
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes > left_bytes and shards[-1]:
      shards.append({})
      left_bytes = max_file_bytes
    shards[-1][name] = shape
    left_bytes -= num_bytes
  tensors = _iter_tensors(params, names, sizes, config.num_layers)
  places = {}
  for number, shard in enumerate(shards, start=1):
    file = SINGLE
    if len(shards) > 1:
      file = f'model-{number:05d}-of-{len(shards):05d}.safetensors'
    write_file(draft / file, shard, dtype, (next(tensors) for _ in shard))
    places |= dict.fromkeys(shard, file)
  if len(shards) > 1:
    total = sum(math.prod(shape) for shape in shapes.values()) * dtype.itemsize
    _write_json(draft / INDEX, {'metadata': {'total_size': total}, 'weight_map': places})


def _iter_tensors(
  params: Mapping[str, Any], names: dict[Path, tuple[str, str]], sizes: dict[str, int], layers: int
) -> Iterator[tuple[str, np.ndarray]]:
  """Yields (name, values) of every tensor; only one parameter is on the host."""
  for path, (name, layout) in names.items():
    leaf = params
    for key in path:
      leaf = leaf[key]
    values = np.asarray(leaf)
    if path[0] != 'layers':
      yield name, to_theirs(values, layout, sizes)
      continue
    for layer in range(layers):
      yield name.format(layer), to_theirs(values[layer], layout, sizes)
