"""Exports a run: `python -m score_jax.export --run=runs/stage2_math --workdir=exported`.

The run's best checkpoint becomes a Hugging Face folder, which `transformers` and inference servers
load, or with `--format=orbax` an Orbax checkpoint of the plain parameters. With `--config` and
without `--run` it is the base model of that config. The folder must be new, and appears when it is
whole. No accelerator is used; the parameters must fit into the host's memory.
"""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from etils import epath
from ml_collections import ConfigDict

from score_jax.cli import program
from score_jax.cli.run_input import RUN, WHICH, check_as_trained, run_config
from score_jax.core.config_check import check_config
from score_jax.core.paths import nest
from score_jax.formats import gguf, hf_export, hf_folder
from score_jax.formats.hf_tokenizer_files import tokenizer_files
from score_jax.model.decoder import abstract_params
from score_jax.model.decoder_config import DecoderConfig
from score_jax.model.lora import abstract_adapters, merge
from score_jax.runs.directories import check_run
from score_jax.runs.files import check_writable
from score_jax.runs.restoring import restore_params
from score_jax.setup import base_model
from score_jax.setup.trainable import check_same_base, lora_of_run
from score_jax.tokenizers.base import Tokenizer

_FORMAT = flags.DEFINE_enum('format', 'hf', ['hf', 'orbax'], 'What to write.')
_DTYPE = flags.DEFINE_enum(
  'dtype',
  'float32',
  ['float32', 'bfloat16', 'float16'],
  'Type of the written weights; runs keep float32, the others are rounded.',
)

# Copied as they are, where the base model has them.
TOKENIZER_FILES = (
  'tokenizer.json',
  'tokenizer.model',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'chat_template.jinja',
)
# Of the base model's config.json; the rest is written anew.
_KEPT_FIELDS = (
  'bos_token_id',
  'eos_token_id',
  'pad_token_id',
  'max_position_embeddings',
  'initializer_range',
)


def read_params(config: ConfigDict, decoder: DecoderConfig, run: str | None, which: str) -> dict:
  """Reads what is exported into the host's memory.

  Args:
    config: a checked config.
    decoder: its architecture.
    run: a run directory or one of its checkpoints; None or '' for the base model. Adapters are
      added to the base model's weights.
    which: 'best' by training reward, or 'latest'.

  Returns:
    Nested dicts of NumPy arrays.

  Raises:
    ValueError: if there is no good checkpoint, or one of another model.
  """

  def read_base(dtype):
    path = base_model.checkpoint_path(config)
    return nest(base_model.reader_of(path).iter_params(path, decoder, dtype))

  if not run:
    return read_base(np.float32)
  params, lora = restore_params(run, step=which).params, lora_of_run(run)
  want = abstract_params(decoder)[0] if lora is None else abstract_adapters(decoder, lora)[0]
  if jax.tree.map(lambda x: x.shape, params) != jax.tree.map(lambda x: x.shape, want):
    raise ValueError(f'the parameters of {run} are not those of its base model: other shapes')
  if lora is None:
    return params
  base = read_base(jnp.dtype(decoder.param_dtype))
  check_same_base(run, base)
  return merge(base, params, lora)


def collect_files(path: str, tokenizer: Tokenizer, template: str = '') -> dict[str, bytes]:
  """Collects the files of the base model's tokenizer.

  Args:
    path: the base model.
    tokenizer: what was read from it.
    template: file of a chat template that the run used in place of the model's own.

  Returns:
    The files' contents, by name: copies where the base model is a folder with a tokenizer.json,
    else made from the tokenizer.
  """
  folder = epath.Path(path)
  if not (folder / 'tokenizer.json').exists():
    return tokenizer_files(tokenizer)
  files = {n: (folder / n).read_bytes() for n in TOKENIZER_FILES if (folder / n).exists()}
  return files | _other_template(folder, template)


def _other_template(folder: epath.Path, template: str) -> dict[str, bytes]:
  """The files of a model folder that say another chat template; none for the model's own."""
  if not template:
    return {}
  config = folder / 'tokenizer_config.json'
  fields = hf_folder.read_json(config) if config.exists() else {}
  fields.pop('chat_template', None)
  return {
    'chat_template.jinja': epath.Path(template).read_bytes(),
    'tokenizer_config.json': (json.dumps(fields, indent=2) + '\n').encode(),
  }


def _about(path: str, tokenizer: Tokenizer) -> tuple[dict[str, Any], dict[str, Any]]:
  """More of config.json, and generation_config.json: from the base model, or its tokenizer.

  Both say every id that ended a turn in training: a base model may name fewer, and one that does
  not name the chat template's own would be sampled to its limit.
  """
  ends = list(tokenizer.end_of_turn_ids)
  generation = {'eos_token_id': ends, 'pad_token_id': tokenizer.pad_id}
  fields: dict[str, Any] = dict(generation)
  if base_model.reader_of(path) is gguf:
    with gguf.open_gguf(path) as file:
      if (bos := file.metadata('tokenizer.ggml.bos_token_id')) is not None:
        fields['bos_token_id'] = generation['bos_token_id'] = bos
      if length := file.metadata('llama.context_length'):
        fields['max_position_embeddings'] = length
  if base_model.reader_of(path) is hf_folder:
    theirs = hf_folder.read_json(epath.Path(path) / 'config.json')
    theirs = theirs | theirs.get('text_config', {})
    fields |= {key: theirs[key] for key in _KEPT_FIELDS if theirs.get(key) is not None}
    if (file := epath.Path(path) / 'generation_config.json').exists():
      generation = hf_folder.read_json(file)
  for about in (fields, generation):
    named = about.get('eos_token_id')
    if not set(ends) <= set(named if isinstance(named, list) else [named]):
      about['eos_token_id'] = ends
  return fields, generation


def write_orbax(
  folder: epath.PathLike, decoder: DecoderConfig, params: dict, files: dict[str, bytes]
) -> None:
  """Writes the parameters as an Orbax checkpoint, `params`, beside the sizes and the tokenizer.

  Args:
    folder: a local folder that is not there yet, or is empty.
    decoder: the architecture, written to decoder.json.
    params: nested dicts of arrays.
    files: other files, by name.

  Raises:
    ValueError: if the folder holds something.
  """
  import orbax.checkpoint as ocp

  with hf_export.appearing(folder) as draft:
    for name, data in files.items():
      (draft / name).write_bytes(data)
    (kept,) = {np.dtype(x.dtype).name for x in jax.tree.leaves(params)}
    sizes = json.dumps(dataclasses.asdict(decoder) | {'param_dtype': kept}, indent=2)
    (draft / 'decoder.json').write_text(sizes + '\n')
    with ocp.StandardCheckpointer() as checkpointer:
      checkpointer.save(draft / 'params', params)
      checkpointer.wait_until_finished()


def export(
  config: ConfigDict,
  folder: epath.PathLike,
  run: str | None = None,
  which: str = 'best',
  layout: str = 'hf',
  dtype: str = 'float32',
) -> None:
  """Exports a run's parameters, or the base model's.

  Args:
    config: a checked config: its base model gives architecture and tokenizer.
    folder: a local folder that is not there yet, or is empty.
    run: see `read_params`.
    which: see `read_params`.
    layout: 'hf' or 'orbax'.
    dtype: type of the written weights.

  Raises:
    ValueError: if the base model or the run cannot be read, or the folder holds something.
  """
  path = base_model.checkpoint_path(config)
  decoder = base_model.make_decoder_config(config)
  tokenizer = base_model.make_tokenizer(config, decoder)
  files = collect_files(path, tokenizer, config.chat.template)
  params = read_params(config, decoder, run, which)
  typed = jnp.dtype(dtype)
  if layout == 'orbax':
    write_orbax(folder, decoder, jax.tree.map(lambda x: np.asarray(x, typed), params), files)
    return
  fields, generation = _about(path, tokenizer)
  hf_export.write_folder(folder, decoder, params, typed, fields, generation, files)


def _body() -> None:
  run, folder = RUN.value, program.WORKDIR.value
  if not folder:
    program.fail('--workdir is not set: the new folder to write')
  if run:
    check_run(run, '--run')
  if not run and program.CONFIG.value is None:
    program.fail('--run is not set, and neither is --config, whose base model could be exported')
  config = program.given_config('a run', default=run_config(run) if run else None)
  check_config(config)
  if run:
    check_as_trained(config, run)
  check_writable(folder)
  hf_export.check_new(folder)
  path = base_model.checkpoint_path(config)
  if not path or not epath.Path(path).exists():
    program.fail(
      f'the base model gives the tokenizer, but there is no config.model.checkpoint={path}'
    )
  export(config, folder, run, WHICH.value, _FORMAT.value, _DTYPE.value)
  print(f'{run or path} is in {folder}')


if __name__ == '__main__':
  program.run_program(_body, 'config', 'workdir', 'run', 'which', 'as_trained')
