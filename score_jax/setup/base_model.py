"""From a config to the base model on the devices: weights, sizes, tokenizer."""

import dataclasses
import datetime
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from score_jax.core import sharding
from score_jax.core.paths import leaf_path, nest
from score_jax.formats import (
  gemma_orbax,
  gguf,
  gguf_tokenizer,
  hf_folder,
  hf_tokenizer,
  weights_folder,
)
from score_jax.model.decoder import Decoder, abstract_params
from score_jax.model.decoder_config import DecoderConfig
from score_jax.model.kernels import best_kernel, why_not
from score_jax.model.presets import preset
from score_jax.tokenizers.base import SentencePieceTokenizer, Tokenizer, check_fit

EMBEDDED = Path(__file__).parents[1] / 'assets' / 'arithmetic'


@dataclasses.dataclass(frozen=True)
class BaseWeights:
  """The weights of the base model, or their shapes.

  Attributes:
    decoder: the architecture.
    params: parameters on the devices, sharded; in the host's memory if so loaded.
    mesh: the devices.
  """

  decoder: Decoder
  params: dict
  mesh: jax.sharding.Mesh


@dataclasses.dataclass(frozen=True)
class Base(BaseWeights):
  """The base model: what everything starts from and is held near.

  Attributes:
    tokenizer: text to ids and back.
    path: where the weights came from.
  """

  tokenizer: Tokenizer
  path: str


@dataclasses.dataclass(frozen=True)
class BaseHeader:
  """What is known of the base model before its weights are read.

  Attributes:
    path: where the weights lie.
    decoder: the architecture's sizes.
    tokenizer: text to ids and back.
  """

  path: str
  decoder: DecoderConfig
  tokenizer: Tokenizer

  def without_weights(self, mesh: jax.sharding.Mesh) -> BaseWeights:
    """The model with shapes in place of weights."""
    return BaseWeights(Decoder(self.decoder), abstract_params(self.decoder)[0], mesh)


def read_header(config: ConfigDict) -> BaseHeader:
  """Reads sizes and tokenizer of the base model.

  Raises:
    ValueError: as `make_decoder_config` and `make_tokenizer`.
  """
  decoder = make_decoder_config(config)
  return BaseHeader(checkpoint_path(config), decoder, make_tokenizer(config, decoder))


def reader_of(path: str) -> Any:
  """Finds the module that reads a base model.

  Args:
    path: a GGUF file, a Hugging Face folder, an Orbax checkpoint of Gemma, or a weights folder.

  Returns:
    A module with `read_config(path)` and `iter_params(path, config, dtype)`.
  """
  folder = epath.Path(path)
  if path.endswith('.gguf'):
    return gguf
  if (folder / weights_folder.PARAMS).exists():
    return weights_folder
  if gemma_orbax.is_checkpoint(folder):
    return gemma_orbax
  return hf_folder


def checkpoint_path(config: ConfigDict) -> str:
  """The path of the base model, with 'embedded' resolved."""
  return str(EMBEDDED) if config.model.checkpoint == 'embedded' else config.model.checkpoint


def make_decoder_config(config: ConfigDict) -> DecoderConfig:
  """Reads the base model's sizes and applies the config's compute choices.

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
      if name in ('remat', 'scan_unroll', 'attention') or getattr(want, name) == getattr(
        found, name
      ):
        continue
      raise ValueError(
        f'{path} is no {m.preset}: {name} is {getattr(found, name)}, not {getattr(want, name)}'
      )
  return run_config(found, m, jax.default_backend())


def run_config(sizes: DecoderConfig, model: ConfigDict, backend: str) -> DecoderConfig:
  """Adds how a run computes to what it computes.

  Args:
    sizes: the architecture.
    model: `config.model`.
    backend: 'cpu', 'gpu' or 'tpu'.

  Returns:
    The decoder's config. Its kernel may be one that the backend lacks, for evaluation and export
    use none; see `check_kernel`.
  """
  attention = model.attention
  if attention == 'auto':
    attention = best_kernel(backend, model.dtype, sizes.head_dim, sizes.attn_softcap)
  return dataclasses.replace(
    sizes,
    dtype=model.dtype,
    param_dtype=model.param_dtype,
    remat=model.remat,
    scan_unroll=model.scan_unroll,
    attention=attention,
  )


def check_kernel(sizes: DecoderConfig, backend: str) -> None:
  """Checks that updates can use the kernel that a decoder names.

  Args:
    sizes: from `run_config`.
    backend: 'cpu', 'gpu' or 'tpu'.

  Raises:
    ValueError: for a kernel that cannot run, with the reason.
  """
  if why := why_not(sizes.attention, backend, sizes.dtype, sizes.head_dim):
    raise ValueError(f"config.model.attention={sizes.attention!r} {why}; take 'auto'")


def make_tokenizer(config: ConfigDict, decoder: DecoderConfig) -> Tokenizer:
  """Reads the tokenizer that belongs to the base model.

  Args:
    decoder: its architecture, from `make_decoder_config`.

  Returns:
    The tokenizer.

  Raises:
    ValueError: if it is missing or damaged, or has ids that the embedding has no row for; for a
      chat format where the model has none, and a date that is none.
  """
  path = checkpoint_path(config)
  reader = reader_of(path)
  chat = _chat_arguments(config)
  if reader is gguf:
    tokenizer = gguf_tokenizer.read_tokenizer(path, **chat)
  elif reader is weights_folder:
    if chat['chat_template'] or chat['options']:
      raise ValueError(f'config.chat is set, but {path} is a weights folder without a chat format')
    tokenizer = SentencePieceTokenizer(epath.Path(path) / 'tokenizer.model')
  else:
    tokenizer = hf_tokenizer.read_tokenizer(path, num_rows=decoder.vocab_size, **chat)
  check_fit(tokenizer.vocab_size, decoder.vocab_size, path)
  return tokenizer


def _chat_arguments(config: ConfigDict) -> dict[str, Any]:
  """What the config says of the chat format, as arguments of the tokenizers' readers."""
  path, day = config.chat.template, config.chat.date
  try:
    date = datetime.date.fromisoformat(day)
  except ValueError as error:
    raise ValueError(f'config.chat.date={day!r} is no date such as 2024-07-26') from error
  template = epath.Path(path).read_text() if path else None
  return {'chat_template': template, 'date': date, 'options': config.chat.options.to_dict()}


def param_shardings(decoder: DecoderConfig, mesh: jax.sharding.Mesh):
  """Where each parameter lies.

  Args:
    decoder: the sizes.

  Returns:
    A tree of NamedSharding, of the parameters' form.

  Raises:
    ValueError: for a mesh that does not divide them.
  """
  shapes, axes = abstract_params(decoder)
  _check_divides(shapes, axes, mesh)
  return sharding.named_shardings(axes, mesh)


def _check_divides(shapes, axes, mesh: jax.sharding.Mesh) -> None:
  """Raises ValueError with the sizes that a mesh axis does not divide, and what would."""
  names = jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, tuple))
  sizes: dict[tuple[str, ...], set[tuple[str, int]]] = {}
  for x, names_of_x in zip(jax.tree.leaves(shapes), names, strict=True):
    for name, size in zip(names_of_x, x.shape, strict=True):
      if name is not None and sharding.RULES[name]:
        sizes.setdefault(sharding.RULES[name], set()).add((name, size))
  for split, found in sizes.items():
    parts, common = math.prod(mesh.shape[axis] for axis in split), math.gcd(*(n for _, n in found))
    if common % parts:
      told = ', '.join(f'{name} of {size}' for name, size in sorted(found))
      raise ValueError(
        f'config.mesh={tuple(mesh.shape.values())}: {" * ".join(split)}={parts} does not divide '
        f'all that it splits of the model, {told}: take a divisor of {common}'
      )


def load_base(
  config: ConfigDict,
  mesh: jax.sharding.Mesh,
  is_offloaded: bool = False,
  header: BaseHeader | None = None,
) -> Base:
  """Reads the base model onto the devices.

  Args:
    is_offloaded: the parameters stay in the host's memory, in each device's part of it.
    header: from `read_header`; None reads it too.

  Returns:
    The base model.

  Raises:
    ValueError: for a file that is missing, damaged or of other sizes.
  """
  if config.model.dtype == 'float32':
    # Accelerators would round float32 products, and differently in sampler and scorer.
    jax.config.update('jax_default_matmul_precision', 'highest')
  header = header or read_header(config)  # before the weights: the tokenizer may not fit them
  path, decoder = header.path, header.decoder
  places = param_shardings(decoder, mesh)
  if is_offloaded:
    places = jax.tree.map(lambda place: place.with_memory_kind(sharding.HOST), places)
  arrays = reader_of(path).iter_params(path, decoder, jnp.dtype(decoder.param_dtype))
  params = place_params(arrays, places)
  return Base(Decoder(decoder), params, mesh, header.tokenizer, path)


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
