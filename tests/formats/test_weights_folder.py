"""Weights folders: what is written comes back, and what is broken is named."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from score_jax.core.config import default_config
from score_jax.core.sharding import make_mesh
from score_jax.formats import weights_folder
from score_jax.model.decoder import DecoderConfig, abstract_params
from score_jax.setup import base_model

CONFIG = DecoderConfig(
  vocab_size=5,
  num_layers=2,
  embed_dim=4,
  mlp_dim=6,
  num_heads=2,
  num_kv_heads=1,
  head_dim=2,
  tie_embeddings=False,
)


@pytest.fixture
def folder(tmp_path):
  rng = np.random.default_rng(0)
  shapes, _ = abstract_params(CONFIG)
  params = jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), shapes)
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


def test_a_preset_that_the_checkpoint_is_not_is_refused(folder):
  path, _ = folder
  config = default_config()
  config.model.checkpoint = str(path)
  config.model.preset = 'smollm2_135m'
  with pytest.raises(ValueError, match='is no smollm2_135m: vocab_size is 5, not 49152'):
    base_model.make_decoder_config(config)
  config.model.preset = 'nonsense'
  with pytest.raises(ValueError, match="'nonsense' is none of"):
    base_model.make_decoder_config(config)


def test_the_embedded_policy_loads():
  config = default_config()
  config.model.checkpoint = 'embedded'
  base = base_model.load_base(config, make_mesh((-1, 1, 1), jax.devices()[:1]))
  assert base.tokenizer.vocab_size == base.decoder.config.vocab_size
  assert base.tokenizer.decode(base.tokenizer.encode('+7 1 +9 = 0')) == '+7 1 +9 = 0'
  folder = base_model.EMBEDDED
  assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000
