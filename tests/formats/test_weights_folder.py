"""Weights folders: what is written comes back, and what is broken is named."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from small_models import random_params, tiny_decoder

from score_jax.formats import weights_folder

CONFIG = tiny_decoder(vocab_size=5, num_layers=2, embed_dim=4, tie_embeddings=False)


@pytest.fixture
def folder(tmp_path):
  params = random_params(CONFIG)
  weights_folder.save_weights(tmp_path, CONFIG, params, b'tokenizer')
  return tmp_path, params


def test_round_trip_is_exact(folder):
  path, params = folder
  assert weights_folder.read_config(path) == CONFIG
  read = weights_folder.read_params(path, CONFIG)
  assert jax.tree.structure(read) == jax.tree.structure(params)
  jax.tree.map(np.testing.assert_array_equal, read, params)
  assert (path / 'tokenizer.model').read_bytes() == b'tokenizer'


def test_broken_folders_are_named(folder):
  path, _ = folder
  with pytest.raises(ValueError, match=r'embedding has shape \(5, 4\), not \(5, 8\)'):
    weights_folder.read_params(path, dataclasses.replace(CONFIG, embed_dim=8, vocab_size=5))
  with pytest.raises(ValueError, match='no place for .*head/kernel'):
    weights_folder.read_params(path, dataclasses.replace(CONFIG, tie_embeddings=True))
  data = (path / 'params.npz').read_bytes()
  (path / 'params.npz').write_bytes(data[: len(data) // 2])
  with pytest.raises(ValueError, match='params.npz is damaged'):
    weights_folder.read_params(path, CONFIG)
  (path / 'params.npz').unlink()
  with pytest.raises(ValueError, match='params.npz is missing'):
    weights_folder.read_params(path, CONFIG)
  stored = json.loads((path / 'config.json').read_text())
  (path / 'config.json').write_text(json.dumps(stored | {'softcap': 30.0}))
  with pytest.raises(ValueError, match='softcap'):
    weights_folder.read_config(path)
  (path / 'config.json').unlink()
  with pytest.raises(ValueError, match='not a weights folder'):
    weights_folder.read_config(path)
