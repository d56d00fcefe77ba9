"""Reads a Hugging Face folder: config.json and one or several safetensors files.

    config = read_config(folder)
    for path, array in iter_params(folder, config): ...     # our parameters, one at a time

All files are checked, names, shapes, types and bytes, before the first tensor is read. A parameter
of all layers is put together from one tensor a layer; at no time is there more than that parameter
and one tensor.
"""

import json
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from score_jax.core.errors import in_words
from score_jax.core.paths import Path, leaf_paths, nest
from score_jax.formats.axes import letter_sizes, shape_in_file, to_ours
from score_jax.formats.hf_config import parse_config
from score_jax.formats.safetensors_file import Tensor, read_header
from score_jax.model.decoder import abstract_params
from score_jax.model.decoder_config import DecoderConfig

INDEX = 'model.safetensors.index.json'
SINGLE = 'model.safetensors'
_WEIGHTS = ('.safetensors', '.gguf', '.bin', '.pt', '.pth')

# Our tree's leaves outside the layers and in a layer: the file's name, and the layout.
OUTER = {
  ('embedder', 'embedding'): ('model.embed_tokens.weight', 'V D -> V D'),
  ('final_norm', 'scale'): ('model.norm.weight', 'D -> D'),
  ('head', 'kernel'): ('lm_head.weight', 'V D -> D V'),
}
_LAYER = {
  ('attn_norm', 'scale'): ('input_layernorm.weight', 'D -> D'),
  ('attn', 'q'): ('self_attn.q_proj.weight', 'NH D -> D N H'),
  ('attn', 'k'): ('self_attn.k_proj.weight', 'MH D -> D M H'),
  ('attn', 'v'): ('self_attn.v_proj.weight', 'MH D -> D M H'),
  ('attn', 'o'): ('self_attn.o_proj.weight', 'D NH -> N H D'),
  ('attn', 'q_bias'): ('self_attn.q_proj.bias', 'NH -> N H'),
  ('attn', 'k_bias'): ('self_attn.k_proj.bias', 'MH -> M H'),
  ('attn', 'v_bias'): ('self_attn.v_proj.bias', 'MH -> M H'),
  ('attn', 'q_norm', 'scale'): ('self_attn.q_norm.weight', 'H -> H'),
  ('attn', 'k_norm', 'scale'): ('self_attn.k_norm.weight', 'H -> H'),
  ('mlp_norm', 'scale'): ('post_attention_layernorm.weight', 'D -> D'),
  ('mlp', 'gate'): ('mlp.gate_proj.weight', 'F D -> D F'),
  ('mlp', 'up'): ('mlp.up_proj.weight', 'F D -> D F'),
  ('mlp', 'down'): ('mlp.down_proj.weight', 'D F -> F D'),
}
# With post-norms, the norm in front of the MLP has another name, and its old name another place.
_POST_NORMS = {
  ('post_attn_norm', 'scale'): ('post_attention_layernorm.weight', 'D -> D'),
  ('mlp_norm', 'scale'): ('pre_feedforward_layernorm.weight', 'D -> D'),
  ('post_mlp_norm', 'scale'): ('post_feedforward_layernorm.weight', 'D -> D'),
}


def tensor_names(config: DecoderConfig) -> dict[Path, tuple[str, str]]:
  """Where each of our parameters comes from.

  Args:
    config: the architecture.

  Returns:
    By path: the tensor's name, with `{}` for the layer's number, and its layout.
  """
  layer = _LAYER | (_POST_NORMS if config.post_norms else {})
  names = {}
  for path in leaf_paths(abstract_params(config)[0]):
    if path[0] == 'layers':
      name, layout = layer[path[1:]]
      names[path] = ('model.layers.{}.' + name, layout)
    else:
      names[path] = OUTER[path]
  return names


def read_json(path: epath.PathLike) -> dict[str, Any]:
  """Reads a JSON object.

  Args:
    path: the file.

  Returns:
    Its fields.

  Raises:
    ValueError: naming the file, if it is missing, damaged or holds something else.
  """
  path = epath.Path(path)
  if not path.exists():
    raise ValueError(f'{path} is missing')
  try:
    fields = json.loads(path.read_text())
  except (UnicodeDecodeError, json.JSONDecodeError) as error:
    raise ValueError(f'{path} is damaged: {in_words(error)}') from error
  if not isinstance(fields, dict):
    raise ValueError(f'{path} holds a {type(fields).__name__}, not an object')
  return fields


def read_config(folder: epath.PathLike) -> DecoderConfig:
  """Reads the architecture of a folder.

  Args:
    folder: the folder, local or in a bucket.

  Returns:
    The configuration, in float32; `dataclasses.replace` sets other types and remat.

  Raises:
    ValueError: see `score_jax.formats.hf_config.parse_config`.
  """
  path = epath.Path(folder) / 'config.json'
  return parse_config(read_json(path), str(path))


def read_tensors(folder: epath.PathLike) -> dict[str, Tensor]:
  """Lists the tensors of a folder, from the headers of its files.

  Args:
    folder: the folder.

  Returns:
    By name. Of a model that sees images too, only the text model's, under the names that they have
    in a text model.

  Raises:
    ValueError: naming file and tensor: a file is missing or damaged, or is not what the index says.
  """
  folder = epath.Path(folder)
  is_indexed = (folder / INDEX).exists()
  if (folder / SINGLE).exists():
    if is_indexed:
      _check_index_agrees(folder)
    tensors = read_header(folder / SINGLE)
  elif is_indexed:
    tensors = _read_indexed(folder)
  else:
    hint = ', only *.bin: convert it to safetensors' if list(folder.glob('*.bin')) else ''
    raise ValueError(f'{folder} has neither {SINGLE} nor {INDEX}{hint}')
  used = {tensor.path.name for tensor in tensors.values()}
  weights = {path.name for path in folder.iterdir() if path.suffix in _WEIGHTS}
  if left := sorted(weights - used):
    logging.warning(
      '%s: weights are read from %s; not read is %s', folder, sorted(used), ', '.join(left)
    )
  images = ('vision_tower.', 'multi_modal_projector.')
  found = {}
  for name, tensor in tensors.items():
    inner = name.removeprefix('model.')
    if inner.startswith(images) or name.endswith('.rotary_emb.inv_freq'):
      continue  # the latter is not learned: old files keep it all the same
    if name.startswith('language_model.'):
      name = name.removeprefix('language_model.')
    elif inner.startswith('language_model.'):
      name = 'model.' + inner.removeprefix('language_model.')
    found[name] = tensor
  return found


def _check_index_agrees(folder: epath.Path) -> None:
  """Refuses two sets of weights in one folder: an index that names others than the single file."""
  named = set(_places(folder).values())
  if named == {SINGLE}:
    _read_indexed(folder)  # what it says of the one file must be so
    return
  there = sorted(name for name in named - {SINGLE} if (folder / name).exists())
  missing = len(named - {SINGLE}) - len(there)
  raise ValueError(
    f'{folder} holds {SINGLE}, and {INDEX}, which names other files: {", ".join(there) or "none"} '
    f'there, {missing} missing. Which are the weights? Remove {INDEX} (and its files) to take '
    f'{SINGLE}, as `transformers` does, or {SINGLE} to take those of the index'
  )


def _places(folder: epath.Path) -> dict[str, str]:
  """The file of each tensor, by the index."""
  places = read_json(folder / INDEX).get('weight_map')
  if not isinstance(places, dict) or not places:
    raise ValueError(f'{folder / INDEX} has no weight_map')
  return places


def _read_indexed(folder: epath.Path) -> dict[str, Tensor]:
  """The tensors of several files, each where the index says."""
  places = _places(folder)
  headers = {file: read_header(folder / file) for file in sorted(set(places.values()))}
  for name, file in places.items():
    if name not in headers[file]:
      raise ValueError(f'{folder / file} has no tensor {name}, but {INDEX} says so')
  for file, header in headers.items():
    for name, tensor in header.items():
      if places.get(name) != file:
        raise ValueError(f'{tensor} is not in {INDEX}, or in another file there')
  return {name: headers[file][name] for name, file in places.items()}


def iter_params(
  folder: epath.PathLike, config: DecoderConfig, dtype: Any = np.float32
) -> Iterator[tuple[Path, np.ndarray]]:
  """Reads the parameters, one at a time.

  Args:
    folder: the folder.
    config: the architecture, from `read_config`.
    dtype: type of the returned arrays.

  Yields:
    (path, array): layers stacked on a leading axis L.

  Raises:
    ValueError: before the first array, naming file and tensor: see `read_tensors`; one is missing,
      is of another shape than `config` says, or is one that the decoder has no place for.
  """
  tensors, sizes = read_tensors(folder), letter_sizes(config)
  names = tensor_names(config)
  plan = []
  for path, (name, layout) in names.items():
    want = shape_in_file(layout, sizes)
    layers = range(config.num_layers) if path[0] == 'layers' else [None]
    parts = [_take(tensors, name.format(i), want, folder) for i in layers]
    plan.append((path, parts, layout))
  twin = tensors.pop('lm_head.weight', None) if config.tie_embeddings else None
  if tensors:
    raise ValueError(
      f'{tensors[min(tensors)]} has no place in the decoder ({len(tensors)} such in all); without '
      'it the model would compute something else'
    )
  if twin is not None:
    _check_twin(twin, next(parts[0] for path, parts, _ in plan if path[0] == 'embedder'))
  for path, parts, layout in plan:
    if path[0] != 'layers':
      yield path, to_ours(parts[0].read(), layout, sizes).astype(dtype, order='C')
      continue
    first = to_ours(parts[0].read(), layout, sizes)
    stacked = np.empty((len(parts), *first.shape), dtype)
    stacked[0] = first
    for layer, part in enumerate(parts[1:], start=1):
      stacked[layer] = to_ours(part.read(), layout, sizes)
    yield path, stacked
    del stacked, first  # or it would be there while the next one is made


def read_params(folder: epath.PathLike, config: DecoderConfig, dtype: Any = np.float32) -> dict:
  """Reads all parameters into memory; arguments and errors as for `iter_params`."""
  return nest(iter_params(folder, config, dtype))


def _take(tensors: dict[str, Tensor], name: str, want: tuple[int, ...], folder) -> Tensor:
  tensor = tensors.pop(name, None)
  if tensor is None:
    raise ValueError(f'{folder}: tensor {name} of shape {want} is missing')
  if tensor.shape != want:
    raise ValueError(f'{tensor} has shape {tensor.shape}, but config.json asks for {want}')
  return tensor


def _check_twin(head: Tensor, embedding: Tensor) -> None:
  """A tied head that is stored all the same must be the embedding."""
  same = head.shape == embedding.shape and head.dtype == embedding.dtype
  if not (same and np.array_equal(head.read(), embedding.read())):
    raise ValueError(f'{head} is not the embedding, but config.json says tie_word_embeddings')
