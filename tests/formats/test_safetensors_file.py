"""Safetensors files: damage is named before a tensor is read."""

import pytest
from etils import epath
from small_models import random_params, rewrite_header, tiny_decoder

from score_jax.formats import hf_export
from score_jax.formats.safetensors_file import read_header

CONFIG = tiny_decoder(num_layers=2, embed_dim=6, mlp_dim=10, head_dim=4, tie_embeddings=False)


@pytest.fixture
def path(tmp_path):
  """A file with the tensors of a small model."""
  hf_export.write_folder(tmp_path / 'model', CONFIG, random_params(CONFIG))
  return epath.Path(tmp_path) / 'model' / 'model.safetensors'


@pytest.mark.parametrize(
  ('edit', 'complaint'),
  [
    (lambda h: h.pop('model.norm.weight'), r'begins at byte|tensors end at byte'),
    (lambda h: h['model.norm.weight'].update(dtype='F64'), 'norm.weight is of type F64; only F32'),
    (
      lambda h: h['model.norm.weight'].update(dtype='BF16'),
      'norm.weight of shape .* 24 bytes, not 12',
    ),
    (
      lambda h: h['model.norm.weight'].update(shape=[7]),
      'norm.weight of shape .* 24 bytes, not 28',
    ),
    (lambda h: h['model.norm.weight'].update(shape=[6, -1, -1]), 'norm.weight of shape'),
    (lambda h: h['model.norm.weight'].pop('shape'), 'header is damaged'),
    (lambda h: h['lm_head.weight'].update(data_offsets=[0, 264]), 'begins at byte'),
  ],
)
def test_damaged_headers(path, edit, complaint):
  rewrite_header(path, edit)
  with pytest.raises(ValueError, match=f'model.safetensors.*({complaint})'):
    read_header(path)


@pytest.mark.parametrize('size', [0, 5, 300, -1, -200])
def test_truncated_files(path, size):
  data = path.read_bytes()
  path.write_bytes(data[:size])
  with pytest.raises(ValueError, match='model.safetensors.*truncated'):
    read_header(path)


def test_bytes_behind_the_last_tensor(path):
  path.write_bytes(path.read_bytes() + b'more')
  with pytest.raises(ValueError, match='but its tensors end at byte'):
    read_header(path)


def test_other_files_under_this_name(path):
  path.write_bytes(b'PK\x03\x04' + bytes(1000))
  with pytest.raises(ValueError, match='is no safetensors file'):
    read_header(path)
  path.write_bytes((8).to_bytes(8, 'little') + b'not JSON')
  with pytest.raises(ValueError, match='model.safetensors: the header is damaged'):
    read_header(path)


def test_a_file_that_shrinks_while_it_is_read(path):
  tensors = read_header(path)
  path.write_bytes(b'')
  with pytest.raises(ValueError, match='tensor lm_head.weight should have 264 bytes, only 0'):
    tensors['lm_head.weight'].read()
