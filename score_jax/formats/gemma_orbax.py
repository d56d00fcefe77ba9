"""Reads Gemma 2 and 3 from the Orbax checkpoints that google-deepmind/gemma publishes and writes.

Two forms of the same tree are known to that project, and both are read here:

    {'transformer/layer_0/attn/q_einsum': {'w': ...}, ...}                published
    {'layer_0': {'attn': {'q_einsum': {'w': ...}}, ...}, ...}             written by its trainer

Such a checkpoint has no config: the sizes are those of its arrays, and what they leave open (caps,
windows, rotary bases) is taken from the preset of the same sizes. Tested with small checkpoints
written here in these names and shapes; no published checkpoint has been read yet.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from score_jax.core.paths import Path, leaf_paths, nest
from score_jax.formats.axes import letter_sizes, shape_in_file, to_ours
from score_jax.model.decoder import abstract_params
from score_jax.model.decoder_config import DecoderConfig
from score_jax.model.presets import PRESETS

# Our tree's leaves: the array's name, which part of its first axis (None: it is whole), the layout.
_OUTER = {
  ('embedder', 'embedding'): ('embedder/input_embedding', None, 'V D -> V D'),
  ('final_norm', 'scale'): ('final_norm/scale', None, 'D -> D'),
}
_LAYER = {
  ('attn_norm', 'scale'): ('pre_attention_norm/scale', None, 'D -> D'),
  ('post_attn_norm', 'scale'): ('post_attention_norm/scale', None, 'D -> D'),
  ('mlp_norm', 'scale'): ('pre_ffw_norm/scale', None, 'D -> D'),
  ('post_mlp_norm', 'scale'): ('post_ffw_norm/scale', None, 'D -> D'),
  ('attn', 'q'): ('attn/q_einsum/w', None, 'N D H -> D N H'),
  ('attn', 'k'): ('attn/kv_einsum/w', 0, 'M D H -> D M H'),
  ('attn', 'v'): ('attn/kv_einsum/w', 1, 'M D H -> D M H'),
  ('attn', 'o'): ('attn/attn_vec_einsum/w', None, 'N H D -> N H D'),
  ('attn', 'q_norm', 'scale'): ('attn/_query_norm/scale', None, 'H -> H'),
  ('attn', 'k_norm', 'scale'): ('attn/_key_norm/scale', None, 'H -> H'),
  ('mlp', 'gate'): ('mlp/gating_einsum', 0, 'F D -> D F'),
  ('mlp', 'up'): ('mlp/gating_einsum', 1, 'F D -> D F'),
  ('mlp', 'down'): ('mlp/linear', None, 'F D -> F D'),
}
# What only a model that sees images needs.
_IMAGES = ('SigLiPFromPatches_0/', 'vision_encoder/', 'embedder/mm_')


@dataclasses.dataclass(frozen=True)
class _Array:
  """An array of a checkpoint: where it lies in the stored tree, its shape and type."""

  folder: epath.Path
  keys: Path
  shape: tuple[int, ...]
  dtype: Any

  def __str__(self):
    return f'{self.folder}: array {"/".join(self.keys)}'

  def read(self) -> np.ndarray:
    """Reads this array and no other."""
    import orbax.checkpoint as ocp

    arguments = ocp.args.PyTreeRestore(
      item=nest([(self.keys, jax.ShapeDtypeStruct(self.shape, self.dtype))]),
      restore_args=nest([(self.keys, ocp.RestoreArgs(restore_type=np.ndarray))]),
      partial_restore=True,
    )
    tree = ocp.PyTreeCheckpointHandler().restore(self.folder, args=arguments)
    [array] = jax.tree.leaves(tree)
    return np.asarray(array)


def is_checkpoint(folder: epath.PathLike) -> bool:
  """Whether a folder is an Orbax checkpoint of a tree."""
  return (epath.Path(folder) / '_METADATA').exists()


def _read_arrays(folder: epath.PathLike) -> dict[str, _Array]:
  """The arrays of the text model, by their name without `transformer/`."""
  import orbax.checkpoint as ocp

  folder = epath.Path(folder)
  if not is_checkpoint(folder):
    raise ValueError(f'{folder} is no Orbax checkpoint: it has no _METADATA')
  folder = folder if '://' in str(folder) else folder.absolute()
  tree = ocp.PyTreeCheckpointHandler().metadata(folder).tree
  arrays = {}
  for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
    path = tuple(str(key.key) for key in keys)
    name = '/'.join(path).removeprefix('transformer/')
    if 'mlp/' in name:
      name = name.removesuffix('/w')
    if not name.startswith(_IMAGES):
      arrays[name] = _Array(folder, path, tuple(leaf.shape), np.dtype(leaf.dtype))
  return arrays


def read_config(
  folder: epath.PathLike, presets: Mapping[str, DecoderConfig] = PRESETS
) -> DecoderConfig:
  """Finds the preset that has the sizes of a checkpoint.

  Args:
    folder: an Orbax checkpoint.
    presets: what it may be.

  Returns:
    The preset. Published embeddings have rows beyond the vocabulary, which are left out; where
    there are fewer rows than the preset has (Gemma 3 with its image tokens), that is the size.

  Raises:
    ValueError: if it is no checkpoint of a Gemma, or of none of these sizes.
  """
  arrays = _read_arrays(folder)
  try:
    (rows, width), (num_heads, _, head_dim) = (
      arrays[name].shape for name in ('embedder/input_embedding', 'layer_0/attn/q_einsum/w')
    )
    num_kv_heads = arrays['layer_0/attn/kv_einsum/w'].shape[1]
    mlp_dim = arrays['layer_0/mlp/linear'].shape[0]
  except (KeyError, ValueError, IndexError) as error:
    raise ValueError(
      f'{folder} is no checkpoint of a Gemma 2 or 3: {error.args[0]} is missing or of another '
      f'form; it has {", ".join(sorted(arrays)[:5])} and so on'
    ) from error
  sizes = {
    'num_layers': len({name.split('/')[0] for name in arrays if name.startswith('layer_')}),
    'embed_dim': width,
    'mlp_dim': mlp_dim,
    'num_heads': num_heads,
    'num_kv_heads': num_kv_heads,
    'head_dim': head_dim,
    'qk_norm': 'layer_0/attn/_query_norm/scale' in arrays,
  }
  for config in presets.values():
    is_same = all(getattr(config, name) == size for name, size in sizes.items())
    if is_same and config.post_norms:
      return dataclasses.replace(config, vocab_size=min(rows, config.vocab_size))
  raise ValueError(f'{folder}: no Gemma of {sorted(presets)} has the sizes {sizes}')


def iter_params(
  folder: epath.PathLike, config: DecoderConfig, dtype: Any = np.float32
) -> Iterator[tuple[Path, np.ndarray]]:
  """Reads the parameters, one at a time.

  Args:
    folder: an Orbax checkpoint.
    config: the architecture, from `read_config`.
    dtype: type of the returned arrays.

  Yields:
    (path, array): layers stacked on a leading axis L.

  Raises:
    ValueError: before the first array, naming folder and array: one is missing, is of another
      shape than `config` says, is not of floating point, or has no place in the decoder.
  """
  arrays, sizes = _read_arrays(folder), letter_sizes(config)
  left, plan = set(arrays), []
  for path in leaf_paths(abstract_params(config)[0]):
    table = {('layers', *inner): where for inner, where in _LAYER.items()} | _OUTER
    if path not in table:
      raise ValueError(f'{folder}: a Gemma has no parameter {"/".join(path)}')
    name, part, layout = table[path]
    names = [name]
    if path[0] == 'layers':
      names = [f'layer_{i}/{name}' for i in range(config.num_layers)]
    left -= set(names)
    parts = [_check(arrays, name, part, layout, sizes, folder) for name in names]
    plan.append((path, parts, part))
  if left:
    raise ValueError(f'{arrays[min(left)]} has no place in the decoder ({len(left)} such in all)')

  def read(array, layout, part):
    values = array.read()
    values = values if part is None else values[part]
    return to_ours(values[: sizes['V']] if layout[0] == 'V' else values, layout, sizes)

  for path, parts, part in plan:
    first = read(*parts[0], part)
    if path[0] != 'layers':
      yield path, first.astype(dtype, order='C')
      continue
    stacked = np.empty((len(parts), *first.shape), dtype)
    stacked[0] = first
    for layer, (array, layout) in enumerate(parts[1:], start=1):
      stacked[layer] = read(array, layout, part)
    yield path, stacked
    del stacked, first  # or it would be there while the next one is made


def _check(arrays, name, part, layout, sizes, folder) -> tuple[_Array, str]:
  """Finds an array, checks its shape and type, and returns it with the layout that it has."""
  want = shape_in_file(layout, sizes)
  if name not in arrays:
    raise ValueError(f'{folder}: array {name} is missing')
  array = arrays[name]
  have = array.shape if part is None else array.shape[1:]
  if not np.issubdtype(array.dtype, np.floating) and array.dtype != jax.numpy.bfloat16:
    raise ValueError(f'{array} is of type {array.dtype}, which is not floating point')
  if name.endswith('gating_einsum') and have == want[::-1]:
    return array, 'D F -> D F'  # some versions store it the other way round
  fits = have == want
  if layout[0] == 'V':  # rows beyond the vocabulary were never used
    fits = have[1:] == want[1:] and have[0] >= want[0]
  if part is not None:
    fits = fits and array.shape[0] == 2
  if not fits:
    pair = '' if part is None else ' two of'
    raise ValueError(f'{array} has shape {array.shape}, but the sizes ask for{pair} {want}')
  return array, layout
