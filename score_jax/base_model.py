"""From a config to the base model on the devices: weights, sizes, tokenizer."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from score_jax.core import sharding
from score_jax.core.tokenizers import SentencePieceTokenizer, Tokenizer, check_fit
from score_jax.model import folder_tokenizer, gemma_layout, gguf, gguf_tokenizer, hf_folder, weights
from score_jax.model.decoder import Decoder, abstract_params
from score_jax.model.decoder_config import DecoderConfig
from score_jax.model.layouts import leaf_path, nest
from score_jax.model.presets import preset
from score_jax.runs.restoring import Restored, restore_subtree

EMBEDDED = Path(__file__).parent / 'assets' / 'arithmetic'


@dataclasses.dataclass(frozen=True)
class Base:
  """The base model: what everything starts from and is held near.

  Attributes:
    decoder: the architecture.
    tokenizer: text to ids and back.
    params: parameters on the devices, sharded.
    path: where they came from.
  """

  decoder: Decoder
  tokenizer: Tokenizer
  params: dict
  path: str


def reader_of(path: str) -> Any:
  """Finds the module that reads a base model.

  Args:
    path: a GGUF file, a Hugging Face folder, an Orbax checkpoint of Gemma, or a weights folder.

  Returns:
    A module with `read_config(path)` and `iter_params(path, config)`.
  """
  folder = epath.Path(path)
  if path.endswith('.gguf'):
    return gguf
  if (folder / weights.PARAMS).exists():
    return weights
  if gemma_layout.is_checkpoint(folder):
    return gemma_layout
  return hf_folder


def checkpoint_path(config: ConfigDict) -> str:
  """The path of the base model, with 'embedded' resolved."""
  return str(EMBEDDED) if config.model.checkpoint == 'embedded' else config.model.checkpoint


def make_decoder_config(config: ConfigDict) -> DecoderConfig:
  """Reads the base model's sizes and applies the config's compute choices.

  Args:
    config: a checked config.

  Returns:
    The decoder's config.

  Raises:
    ValueError: if a named preset is not what the checkpoint holds, naming the field.
  """
  path, m = checkpoint_path(config), config.model
  found = reader_of(path).read_config(path)
  if m.preset:
    want = preset(m.preset)
    sizes = [f.name for f in dataclasses.fields(want) if f.name not in ('dtype', 'param_dtype')]
    for name in sizes:
      if name in ('remat', 'scan_unroll') or getattr(want, name) == getattr(found, name):
        continue
      raise ValueError(
        f'{path} is no {m.preset}: {name} is {getattr(found, name)}, not {getattr(want, name)}'
      )
  return dataclasses.replace(
    found, dtype=m.dtype, param_dtype='float32', remat=m.remat, scan_unroll=m.scan_unroll
  )


def make_tokenizer(config: ConfigDict, decoder: DecoderConfig) -> Tokenizer:
  """Reads the tokenizer that belongs to the base model.

  Args:
    config: a checked config.
    decoder: its architecture, from `make_decoder_config`.

  Returns:
    The tokenizer.

  Raises:
    ValueError: if it is missing or damaged, or has ids that the embedding has no row for.
  """
  path = checkpoint_path(config)
  reader = reader_of(path)
  if reader is gguf:
    tokenizer = gguf_tokenizer.read_tokenizer(path)
  elif reader is weights:
    tokenizer = SentencePieceTokenizer(epath.Path(path) / 'tokenizer.model')
  else:
    tokenizer = folder_tokenizer.read_tokenizer(path, num_rows=decoder.vocab_size)
  check_fit(tokenizer.vocab_size, decoder.vocab_size, path)
  return tokenizer


def param_shardings(decoder: DecoderConfig, mesh: jax.sharding.Mesh):
  """Where each parameter lies.

  Args:
    decoder: the sizes.
    mesh: the devices.

  Returns:
    A tree of NamedSharding, of the parameters' form.
  """
  _, axes = abstract_params(decoder)
  return jax.tree.map(
    lambda names: jax.sharding.NamedSharding(mesh, sharding.partition_spec(names)),
    axes,
    is_leaf=lambda x: isinstance(x, tuple),
  )


def load_base(config: ConfigDict, mesh: jax.sharding.Mesh) -> Base:
  """Reads the base model onto the devices.

  Args:
    config: a checked config.
    mesh: the devices.

  Returns:
    The base model.

  Raises:
    ValueError: for a file that is missing, damaged or of other sizes.
  """
  if config.model.dtype == 'float32':
    # Accelerators would round float32 products, and differently in sampler and scorer.
    jax.config.update('jax_default_matmul_precision', 'highest')
  path = checkpoint_path(config)
  decoder = make_decoder_config(config)
  tokenizer = make_tokenizer(config, decoder)  # before the weights: it may not fit them
  params = place_params(reader_of(path).iter_params(path, decoder), param_shardings(decoder, mesh))
  return Base(Decoder(decoder), tokenizer, params, path)


def place_params(arrays: Iterator[tuple[tuple[str, ...], np.ndarray]], shardings: dict) -> dict:
  """Puts parameters on the devices as they are read, so that the host never holds two.

  Args:
    arrays: (path, array) of every parameter; every process reads all of them.
    shardings: where each lies, from `param_shardings`.

  Returns:
    The parameters.
  """
  place = {leaf_path(keys): s for keys, s in jax.tree_util.tree_flatten_with_path(shardings)[0]}

  def placed():
    for path, array in arrays:
      x = jax.make_array_from_callback(array.shape, place[path], array.__getitem__)
      yield path, jax.block_until_ready(x)
      del array, x  # or it would be there while the next one is read

  return nest(placed())


def load_start(config: ConfigDict, base: Base) -> dict:
  """Reads the parameters that the stage starts from.

  Args:
    config: a checked config.
    base: the base model, whose shapes and shardings they must have.

  Returns:
    The base model's parameters, or those of the run `config.init.path`.

  Raises:
    ValueError: if that run has no good checkpoint, or one of other shapes.
  """
  if not config.init.path:
    return base.params
  return load_run(config.init.path, base, config.init.which)


def load_run(run: str, base: Base, which: str) -> dict:
  """Reads the trained parameters of a run.

  Args:
    run: a run directory, or one of its checkpoints.
    base: the base model, whose shapes and shardings they must have.
    which: 'best' by training reward, or 'latest'.

  Returns:
    The parameters, on the devices.

  Raises:
    ValueError: if there is no good checkpoint, or one of other shapes.
  """
  return restore_run(run, base, which).state


def restore_run(run: str, base: Base, which: str) -> Restored:
  """As `load_run`, with the checkpoint's step and metadata."""
  return restore_subtree(run, 'trainable', base.params, step=which)
