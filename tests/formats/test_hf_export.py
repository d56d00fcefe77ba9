"""Writing Hugging Face folders: nothing appears before it is whole, nothing is overwritten."""

import dataclasses
import json

import jax
import pytest
from etils import epath
from small_models import random_params, tiny_decoder

from score_jax.formats import hf_export
from score_jax.formats.safetensors_file import read_header

CONFIG = tiny_decoder(num_layers=2, embed_dim=6, mlp_dim=10, head_dim=4, tie_embeddings=False)


def test_nothing_appears_before_it_is_whole(tmp_path):
  params = random_params(CONFIG)
  del params['layers']['mlp']['up']
  with pytest.raises(KeyError):
    hf_export.write_folder(tmp_path / 'out', CONFIG, params)
  assert not list(tmp_path.iterdir())
  (tmp_path / '.out.tmp').mkdir()  # left by a process that was killed
  (tmp_path / '.out.tmp' / 'half').write_bytes(b'')
  (tmp_path / 'out').mkdir()
  hf_export.write_folder(tmp_path / 'out', CONFIG, random_params(CONFIG))
  assert not (tmp_path / 'out' / 'half').exists() and not (tmp_path / '.out.tmp').exists()


def test_nothing_is_overwritten(tmp_path):
  hf_export.write_folder(tmp_path / 'out', CONFIG, random_params(CONFIG))
  with pytest.raises(ValueError, match='is there already'):
    hf_export.write_folder(tmp_path / 'out', CONFIG, random_params(CONFIG))
  with pytest.raises(ValueError, match='in a bucket cannot appear at once'):
    hf_export.write_folder('gs://bucket/model', CONFIG, random_params(CONFIG))


def test_what_no_architecture_computes_is_not_exported(tmp_path):
  config = dataclasses.replace(CONFIG, rope_fraction=0.5)
  with pytest.raises(ValueError, match='computes what this decoder does: rope_fraction=0.5'):
    hf_export.write_folder(tmp_path / 'out', config, random_params(config))
  config = dataclasses.replace(CONFIG, attn_softcap=3.0)
  with pytest.raises(ValueError, match='attn_softcap=3.0'):
    hf_export.config_fields(config)


def test_a_shard_is_not_larger_than_it_may_be(tmp_path):
  shards = epath.Path(tmp_path) / 'model'
  hf_export.write_folder(shards, CONFIG, random_params(CONFIG), max_file_bytes=1500)
  index = json.loads((shards / 'model.safetensors.index.json').read_text())
  files = sorted(set(index['weight_map'].values()))
  total = 0
  for file in files:
    tensors = read_header(shards / file)
    num_bytes = sum(tensor.num_bytes for tensor in tensors.values())
    assert num_bytes <= 1500 or len(tensors) == 1
    total += num_bytes
  assert (
    total
    == index['metadata']['total_size']
    == 4 * sum(x.size for x in jax.tree.leaves(random_params(CONFIG)))
  )
