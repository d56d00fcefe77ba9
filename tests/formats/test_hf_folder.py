"""Hugging Face folders: what is read is what was written, and damage is named before it is used."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from small_models import random_params, rewrite_header, tiny_decoder

from score_jax.formats import hf_export, hf_folder
from score_jax.model.presets import PRESETS

CONFIG = tiny_decoder(num_layers=2, embed_dim=6, mlp_dim=10, head_dim=4, tie_embeddings=False)
GEMMA = dataclasses.replace(
  PRESETS['gemma3_4b'],
  vocab_size=11,
  num_layers=7,
  embed_dim=6,
  mlp_dim=10,
  num_heads=2,
  num_kv_heads=1,
  head_dim=4,
)
QWEN = dataclasses.replace(CONFIG, qkv_bias=True, tie_embeddings=True)


@pytest.fixture
def folder(tmp_path):
  path = epath.Path(tmp_path) / 'model'
  hf_export.write_folder(path, CONFIG, random_params(CONFIG))
  return path


@pytest.fixture
def shards(tmp_path):
  path = epath.Path(tmp_path) / 'model'
  hf_export.write_folder(path, CONFIG, random_params(CONFIG), max_file_bytes=1500)
  return path


def fields_of(path):
  return json.loads(path.read_text())


def change(path, **changes):
  """Rewrites a JSON file; None takes a key out."""
  fields = fields_of(path) | changes
  path.write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))


@pytest.mark.parametrize('config', [CONFIG, QWEN, GEMMA], ids=['llama', 'qwen2', 'gemma3'])
@pytest.mark.parametrize('dtype', [np.float32, jnp.bfloat16, np.float16])
@pytest.mark.parametrize('max_file_bytes', [10**9, 700])
def test_round_trip(tmp_path, config, dtype, max_file_bytes):
  params = random_params(config, dtype=dtype)
  hf_export.write_folder(
    tmp_path / 'out', config, params, dtype, max_file_bytes=max_file_bytes, files={'a.txt': b'hi'}
  )
  found = hf_folder.read_config(tmp_path / 'out')
  assert found == config
  again = hf_folder.read_params(tmp_path / 'out', found, dtype)
  jax.tree.map(np.testing.assert_array_equal, again, params)
  assert all(x.dtype == dtype for x in jax.tree.leaves(again))
  names = sorted(path.name for path in (tmp_path / 'out').iterdir())
  if max_file_bytes == 10**9:
    assert names == ['a.txt', 'config.json', 'model.safetensors']
  else:
    assert len(names) > 4 and 'model.safetensors.index.json' in names
  assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_one_parameter_at_a_time(folder):
  """The order of reading is the order of the tree, and each array is its own."""
  arrays = dict(hf_folder.iter_params(folder, CONFIG))
  assert list(arrays) == list(hf_folder.tensor_names(CONFIG))
  assert all(x.flags.owndata and x.flags.writeable for x in arrays.values())


def test_tensors_by_hand(folder):
  """A row of a projection is a head's feature; the file holds outputs by inputs."""
  params, tensors = random_params(CONFIG), hf_folder.read_tensors(folder)
  q, o = (tensors[f'model.layers.1.self_attn.{x}_proj.weight'].read() for x in 'qo')
  assert q.shape == (16, 6) and o.shape == (6, 16)
  assert q[4 * 3 + 1, 5] == params['layers']['attn']['q'][1, 5, 3, 1]
  assert o[5, 4 * 3 + 1] == params['layers']['attn']['o'][1, 3, 1, 5]
  assert tensors['lm_head.weight'].read()[7, 2] == params['head']['kernel'][2, 7]


# Damage.


def test_missing_files(shards):
  path = shards / 'model-00002-of-00004.safetensors'
  assert path.exists()
  path.unlink()
  with pytest.raises(ValueError, match='model-00002-of-00004.safetensors is missing'):
    hf_folder.read_params(shards, CONFIG)
  (shards / 'model.safetensors.index.json').unlink()
  with pytest.raises(ValueError, match='has neither model.safetensors nor model.safetensors.index'):
    hf_folder.read_params(shards, CONFIG)
  (shards / 'pytorch_model.bin').write_bytes(b'')
  with pytest.raises(ValueError, match=r'only \*.bin: convert it to safetensors'):
    hf_folder.read_params(shards, CONFIG)
  (shards / 'config.json').unlink()
  with pytest.raises(ValueError, match='config.json is missing'):
    hf_folder.read_config(shards)


@pytest.mark.parametrize('are_there', [True, False])
def test_one_file_beside_an_index_of_others(shards, tmp_path, are_there):
  """Two sets of weights, or one and what is left of another: neither is taken without a word."""
  hf_export.write_folder(tmp_path / 'one', CONFIG, random_params(CONFIG, 1))
  if not are_there:
    for path in shards.glob('model-*'):
      path.unlink()
  (tmp_path / 'one' / 'model.safetensors').rename(shards / 'model.safetensors')
  there = 'model-00001-of-00004.safetensors, ' if are_there else 'none there, 4 missing'
  with pytest.raises(ValueError, match=rf'which names other files: {there}(.|\n)*Remove model'):
    hf_folder.read_tensors(shards)
  (shards / 'model.safetensors.index.json').unlink()
  assert len(hf_folder.read_tensors(shards)) > 1


def test_an_index_of_one_file_must_be_true(shards, tmp_path):
  hf_export.write_folder(tmp_path / 'one', CONFIG, random_params(CONFIG))
  index = tmp_path / 'one' / 'model.safetensors.index.json'
  places = dict.fromkeys(hf_folder.read_tensors(tmp_path / 'one'), 'model.safetensors')
  index.write_text(json.dumps({'weight_map': places}))
  assert hf_folder.read_tensors(tmp_path / 'one').keys() == places.keys()
  index.write_text(json.dumps({'weight_map': places | {'more': 'model.safetensors'}}))
  with pytest.raises(ValueError, match='has no tensor more'):
    hf_folder.read_tensors(tmp_path / 'one')


def test_weights_that_are_not_read_are_named(shards, caplog):
  hf_folder.read_tensors(shards)
  assert 'not read' not in caplog.text
  for name in ('model.Q4_0.gguf', 'model-00001-of-00009.safetensors'):
    (shards / name).write_bytes(b'')
  hf_folder.read_tensors(shards)
  assert 'not read is model-00001-of-00009.safetensors, model.Q4_0.gguf' in caplog.text


def test_index_and_files_disagree(shards):
  path = shards / 'model.safetensors.index.json'
  places = fields_of(path)['weight_map']
  name, file = next(iter(places.items()))
  other = next(f for f in places.values() if f != file)
  change(path, weight_map=places | {name: other})
  with pytest.raises(ValueError, match=f'{other} has no tensor {name}'):
    hf_folder.read_params(shards, CONFIG)
  change(path, weight_map={k: v for k, v in places.items() if k != name})
  with pytest.raises(ValueError, match=f'tensor {name} is not in model.safetensors.index.json'):
    hf_folder.read_params(shards, CONFIG)
  change(path, weight_map={})
  with pytest.raises(ValueError, match='index.json has no weight_map'):
    hf_folder.read_params(shards, CONFIG)


@pytest.mark.parametrize(
  ('config', 'complaint'),
  [
    (
      dataclasses.replace(CONFIG, mlp_dim=12),
      r'mlp.down_proj.weight has shape \(6, 10\), but config.json asks for \(6, 12\)',
    ),
    (dataclasses.replace(CONFIG, num_layers=3), 'layers.2.*of shape .* is missing'),
    (dataclasses.replace(CONFIG, num_layers=1), 'tensor model.layers.1.* has no place'),
    (dataclasses.replace(CONFIG, qkv_bias=True), r'k_proj.bias of shape \(8,\) is missing'),
    (dataclasses.replace(CONFIG, tie_embeddings=True), 'lm_head.weight is not the embedding'),
  ],
)
def test_other_models(folder, config, complaint, monkeypatch):
  """The complaint comes before any tensor is read, but for a twin that must be compared."""
  if not config.tie_embeddings:
    monkeypatch.setattr('score_jax.formats.safetensors_file.Tensor.read', None)
  with pytest.raises(ValueError, match=complaint):
    next(hf_folder.iter_params(folder, config))


def test_a_tied_head_may_be_stored_twice(tmp_path):
  params = random_params(CONFIG)
  params['head']['kernel'] = params['embedder']['embedding'].T
  hf_export.write_folder(tmp_path / 'out', CONFIG, params)
  tied = dataclasses.replace(CONFIG, tie_embeddings=True)
  again = hf_folder.read_params(tmp_path / 'out', tied)
  assert 'head' not in again
  np.testing.assert_array_equal(again['embedder']['embedding'], params['embedder']['embedding'])


def test_frequencies_of_old_files_are_left_out(folder):
  def edit(header):
    end = max(t['data_offsets'][1] for n, t in header.items() if n != '__metadata__')
    entry = {'dtype': 'F32', 'shape': [2], 'data_offsets': [end, end + 8]}
    header['model.layers.0.self_attn.rotary_emb.inv_freq'] = entry

  path = folder / 'model.safetensors'
  rewrite_header(path, edit)
  path.write_bytes(path.read_bytes() + bytes(8))
  jax.tree.map(
    np.testing.assert_array_equal, hf_folder.read_params(folder, CONFIG), random_params(CONFIG)
  )
