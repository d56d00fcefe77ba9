"""Reads a pretrained model of the Llama architecture from a GGUF file.

    with open_gguf(path) as file:              # opened once; a path will do in place of a file
      config = read_config(file)               # sizes, from the metadata
      tokenizer = read_tokenizer(file)         # vocabulary, merges and chat template
      params = read_params(file, config)       # dequantised, one tensor at a time

A file may hold settings that this package's decoder does not know. Whatever could change the
mathematics is refused by name, so that a model that loads is the model that was published.
Nothing here downloads anything.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from score_jax.core.paths import Path, nest
from score_jax.formats.axes import letter_sizes, shape_in_file, to_ours
from score_jax.formats.gguf_file import GgufFile, open_gguf, opened
from score_jax.formats.gguf_tokenizer import read_tokenizer
from score_jax.model.decoder_config import DecoderConfig

__all__ = ['GgufFile', 'iter_params', 'open_gguf', 'read_config', 'read_params', 'read_tokenizer']

# Our tree's leaves in a layer: the file's name, and 'axes in the file -> axes in our tree'. GGUF
# interleaves the rotary pairs of queries and keys (J pairs of I=2); our decoder, like Hugging
# Face's, turns the first half of a head against the second.
_LAYER_TENSORS = {
  ('attn_norm', 'scale'): ('attn_norm.weight', 'D -> D'),
  ('attn', 'q'): ('attn_q.weight', 'NJI D -> D N IJ'),
  ('attn', 'k'): ('attn_k.weight', 'MJI D -> D M IJ'),
  ('attn', 'v'): ('attn_v.weight', 'MH D -> D M H'),
  ('attn', 'o'): ('attn_output.weight', 'D NH -> N H D'),
  ('mlp_norm', 'scale'): ('ffn_norm.weight', 'D -> D'),
  ('mlp', 'gate'): ('ffn_gate.weight', 'F D -> D F'),
  ('mlp', 'up'): ('ffn_up.weight', 'F D -> D F'),
  ('mlp', 'down'): ('ffn_down.weight', 'D F -> F D'),
}

# Metadata below `llama.` that says nothing new, whatever its value.
_HARMLESS_KEYS = ('context_length', 'tensor_data_layout', 'rope.scaling.original_context_length')

# Metadata below `llama.` that leaves the mathematics alone only with one of these values.
_NEUTRAL_VALUES = {
  'rope.scaling.type': ('none',),
  'rope.scaling.factor': (0.0, 1.0),
  'rope.scaling.attn_factor': (1.0,),
  'rope.scaling.finetuned': (False,),
  'rope.scale_linear': (0.0, 1.0),
  'attention.causal': (True,),
  'attention.clamp_kqv': (0.0,),
  'attention.max_alibi_bias': (0.0,),
  'attention.sliding_window': (0,),
  'attn_logit_softcapping': (0.0,),
  'final_logit_softcapping': (0.0,),
  'embedding_scale': (1.0,),
  'residual_scale': (1.0,),
  'logit_scale': (0.0, 1.0),
  'use_parallel_residual': (False,),
  'expert_count': (0,),
  'expert_used_count': (0,),
}

# Metadata below `llama.` that `read_config` reads.
_READ_KEYS = (
  'vocab_size',
  'block_count',
  'embedding_length',
  'feed_forward_length',
  'attention.head_count',
  'attention.head_count_kv',
  'attention.key_length',
  'attention.value_length',
  'attention.layer_norm_rms_epsilon',
  'rope.dimension_count',
  'rope.freq_base',
)


def read_config(source: epath.PathLike | GgufFile) -> DecoderConfig:
  """Reads a decoder's sizes from a GGUF file.

  Args:
    source: path of the file, or the file from `open_gguf`.

  Returns:
    The configuration, in float32; `dataclasses.replace` sets other types and remat.

  Raises:
    ValueError: the architecture is not `llama`, a size is missing or makes no sense, or the
      metadata asks for something that would change the mathematics, such as RoPE scaling.
  """
  with opened(source) as file:
    architecture = file.metadata('general.architecture')
    if architecture != 'llama':
      raise ValueError(f"{file.path}: architecture {architecture!r}; only 'llama' is supported")
    _refuse_unknown_metadata(file)
    num_heads = file.number('llama.attention.head_count')
    embed_dim = file.number('llama.embedding_length')
    head_dim = file.number('llama.attention.key_length', embed_dim / num_heads)
    if head_dim != int(head_dim):
      raise ValueError(
        f'{file.path}: embedding_length={embed_dim} is not a multiple of head_count={num_heads}'
      )
    for key in ('attention.value_length', 'rope.dimension_count'):
      if (value := file.number(f'llama.{key}', head_dim)) != head_dim:
        raise ValueError(f'{file.path}: llama.{key} is {value}, but the head size is {head_dim}')
    eps = file.number('llama.attention.layer_norm_rms_epsilon')
    sizes = dict(
      vocab_size=file.number('llama.vocab_size', len(file.metadata('tokenizer.ggml.tokens', ()))),
      num_layers=file.number('llama.block_count'),
      embed_dim=embed_dim,
      mlp_dim=file.number('llama.feed_forward_length'),
      num_heads=num_heads,
      num_kv_heads=file.number('llama.attention.head_count_kv', num_heads),
      head_dim=int(head_dim),
      rope_base=float(file.number('llama.rope.freq_base', 10_000.0)),
      norm_eps=float(str(np.float32(eps))),  # 1e-05, not float32's 9.999999747378752e-06
      tie_embeddings='output.weight' not in {tensor.name for tensor in file.reader.tensors},
    )
    try:
      return DecoderConfig(**sizes)
    except ValueError as error:
      raise ValueError(f'{file.path}: {error}') from error


def iter_params(
  source: epath.PathLike | GgufFile, config: DecoderConfig, dtype: Any = np.float32
) -> Iterator[tuple[Path, np.ndarray]]:
  """Reads and dequantises a GGUF file's weights, one parameter at a time.

  Args:
    source: path of the file, or the file from `open_gguf`.
    config: sizes that the file must have, from `read_config`.
    dtype: type of the returned arrays.

  Yields:
    (path, array): the decoder's parameters, layers stacked on a leading axis L, as NumPy arrays.
    Query and key rows are put back from GGUF's interleaved order of rotary pairs to two halves.

  Raises:
    ValueError: a tensor is missing or of another shape than `config` says, or is one that the
      decoder has no place for, all before the first array; or a tensor is of a type that cannot be
      dequantised.
  """
  sizes, dtype = letter_sizes(config), np.dtype(dtype)
  outer = {
    ('embedder', 'embedding'): ('token_embd.weight', 'V D -> V D'),
    ('final_norm', 'scale'): ('output_norm.weight', 'D -> D'),
  }
  if not config.tie_embeddings:
    outer['head', 'kernel'] = ('output.weight', 'V D -> D V')
  with opened(source) as file:
    tensors = {tensor.name: tensor for tensor in file.reader.tensors}

    def take(name, layout):
      return _take(file, name, tensors.pop(name, None), shape_in_file(layout, sizes))

    layers = range(config.num_layers)
    plan = [(path, [take(*where)], where[1]) for path, where in outer.items()]
    for path, (name, layout) in _LAYER_TENSORS.items():
      parts = [take(f'blk.{layer}.{name}', layout) for layer in layers]
      plan.append((('layers', *path), parts, layout))
    if tensors:
      raise ValueError(
        f'{file.path}: the decoder has no place for tensor {min(tensors)} ({len(tensors)} such in '
        'all); without it the model would compute something else'
      )
    for path, parts, layout in plan:
      first = to_ours(_values(file, parts[0]), layout, sizes)
      if path[0] != 'layers':
        yield path, first.astype(dtype, order='C')
        continue
      stacked = np.empty((len(parts), *first.shape), dtype)
      stacked[0] = first
      for layer, part in enumerate(parts[1:], start=1):
        stacked[layer] = to_ours(_values(file, part), layout, sizes)
      yield path, stacked
      del stacked, first  # or it would be there while the next one is made


def read_params(
  source: epath.PathLike | GgufFile, config: DecoderConfig, dtype: Any = np.float32
) -> dict[str, Any]:
  """Reads all weights into nested dicts; arguments and errors as for `iter_params`."""
  return nest(iter_params(source, config, dtype))


def _take(file: GgufFile, name: str, tensor: Any, expected: tuple[int, ...]) -> Any:
  """Checks a `gguf.ReaderTensor`; None where the file has none of this name."""
  if tensor is None:
    raise ValueError(f'{file.path}: tensor {name} of shape {expected} is missing')
  shape = tuple(int(n) for n in reversed(tensor.shape))  # GGUF lists the fastest axis first
  if shape != expected:
    raise ValueError(
      f'{file.path}: tensor {name} has shape {shape}, but the configuration asks for {expected}'
    )
  return tensor


def _values(file: GgufFile, tensor: Any) -> np.ndarray:
  """Dequantises one tensor to f32; may be a view of the mapped file."""
  import gguf

  try:
    return gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
  except NotImplementedError as error:
    raise ValueError(
      f'{file.path}: tensor {tensor.name} is of type {tensor.tensor_type.name}, which the gguf '
      'package cannot dequantise'
    ) from error


def _refuse_unknown_metadata(file: GgufFile) -> None:
  """Raises ValueError on metadata that could change what the model computes."""
  if (parts := file.metadata('split.count', 1)) > 1:
    raise ValueError(f'{file.path} is one of {parts} parts; merge them with llama-gguf-split')
  for key in file.reader.fields:
    prefix, _, name = key.partition('.')
    if prefix != 'llama' or name in _READ_KEYS or name in _HARMLESS_KEYS:
      continue
    value, neutral = file.metadata(key), _NEUTRAL_VALUES.get(name)
    if neutral is None:
      raise ValueError(f'{file.path}: metadata {key}={value!r} is unknown here, and could matter')
    if value not in neutral:
      raise ValueError(
        f'{file.path}: metadata {key}={value!r} changes what the model computes; the decoder '
        f'supports only {neutral[-1]!r}'
      )
