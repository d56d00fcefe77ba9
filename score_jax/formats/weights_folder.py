"""A weights folder: a model, its tokenizer and nothing else, small enough to read by eye.

config.json       sizes of the decoder
params.npz        parameters by path, such as layers/attn/q
tokenizer.model   SentencePiece
"""

import dataclasses
import io
import json
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from etils import epath

from score_jax.core.errors import in_words
from score_jax.core.paths import Path, leaf_path
from score_jax.core.storage import writing
from score_jax.model.decoder import abstract_params
from score_jax.model.decoder_config import DecoderConfig

PARAMS = 'params.npz'


def save_weights(
  folder: epath.PathLike, config: DecoderConfig, params: dict, tokenizer_model: bytes
) -> None:
  """Writes a weights folder.

  Args:
    folder: made where it does not exist.
    config: the sizes.
    params: the parameters.
    tokenizer_model: a SentencePiece model's bytes.

  Raises:
    StorageError: where the disk does not take it.
  """
  folder = epath.Path(folder)
  flat, _ = jax.tree_util.tree_flatten_with_path(params)
  buffer = io.BytesIO()
  np.savez(buffer, **{'/'.join(k.key for k in path): np.asarray(x) for path, x in flat})
  with writing(folder, buffer.tell()):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'tokenizer.model').write_bytes(tokenizer_model)
    (folder / PARAMS).write_bytes(buffer.getvalue())
    (folder / 'config.json').write_text(json.dumps(dataclasses.asdict(config), indent=2) + '\n')


def read_config(folder: epath.PathLike) -> DecoderConfig:
  """Reads the sizes in a weights folder.

  Args:
    folder: the folder.

  Returns:
    The sizes.

  Raises:
    ValueError: if config.json is missing, broken, or has fields that the decoder does not know.
  """
  path = epath.Path(folder) / 'config.json'
  if not path.exists():
    raise ValueError(f'{path} is missing: not a weights folder')
  try:
    return DecoderConfig(**json.loads(path.read_text()))
  except (json.JSONDecodeError, TypeError) as error:
    raise ValueError(f'{path} does not describe a decoder: {in_words(error)}') from error


def read_params(folder: epath.PathLike, config: DecoderConfig) -> dict:
  """Reads the parameters in a weights folder.

  Args:
    folder: the folder.
    config: sizes that they must have.

  Returns:
    Nested dict of NumPy arrays.

  Raises:
    ValueError: naming file and parameter, if one is missing, extra or of another shape.
  """
  path = epath.Path(folder) / PARAMS
  if not path.exists():
    raise ValueError(f'{path} is missing')
  try:
    with np.load(io.BytesIO(path.read_bytes())) as archive:
      stored = {name: archive[name] for name in archive.files}
  except Exception as error:
    raise ValueError(f'{path} is damaged: {in_words(error)}') from error
  shapes, _ = abstract_params(config)

  def take(keys, want):
    name = '/'.join(k.key for k in keys)
    if name not in stored:
      raise ValueError(f'{path}: parameter {name} of shape {want.shape} is missing')
    have = stored.pop(name)
    if have.shape != want.shape:
      raise ValueError(f'{path}: parameter {name} has shape {have.shape}, not {want.shape}')
    return have

  params = jax.tree_util.tree_map_with_path(take, shapes)
  if stored:
    raise ValueError(f'{path}: no place for {sorted(stored)}')
  return params


def iter_params(
  folder: epath.PathLike, config: DecoderConfig, dtype: Any = np.float32
) -> Iterator[tuple[Path, np.ndarray]]:
  """Yields the parameters one by one, in a type; else as for `read_params`."""
  params = read_params(folder, config)
  for keys, array in jax.tree_util.tree_flatten_with_path(params)[0]:
    yield leaf_path(keys), array.astype(dtype)
