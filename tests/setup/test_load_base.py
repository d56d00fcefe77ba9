"""A base model from its files: what is loaded, what does not fit, where its parameters lie."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import (
  BASE_MODEL,
  byte_tokenizer_files,
  random_params,
  tiny_decoder,
  write_base_model,
)

from score_jax.core.config import default_config
from score_jax.core.sharding import make_mesh
from score_jax.formats import hf_export, weights_folder
from score_jax.setup import base_model


def config_of(folder):
  config = default_config()
  config.model.checkpoint = str(folder)
  return config


def load(config):
  return base_model.load_base(config, make_mesh((1, 1, 1), jax.devices()[:1]))


def test_a_folder_is_a_base_model(tmp_path):
  write_base_model(tmp_path / 'base')
  config = config_of(tmp_path / 'base')
  found = load(config)
  assert found.decoder.config == BASE_MODEL
  assert found.tokenizer.prompt_ids('A')[:1] == [256] and found.tokenizer.end_of_turn_ids == (257,)
  written = random_params(BASE_MODEL)
  want = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(np.float32), written)
  jax.tree.map(np.testing.assert_array_equal, found.params, want)
  config.model.preset = 'gemma2_2b'
  with pytest.raises(ValueError, match='is no gemma2_2b: vocab_size is 260, not 256000'):
    load(config)


def test_a_tokenizer_that_does_not_fit_is_seen_before_weights_are_read(tmp_path, monkeypatch):
  small = tiny_decoder(vocab_size=255)
  hf_export.write_folder(
    tmp_path / 'small', small, random_params(small), files=byte_tokenizer_files()
  )
  monkeypatch.setattr('score_jax.formats.safetensors_file.Tensor.read', None)
  with pytest.raises(ValueError, match='tokenizer.json.*255'):
    load(config_of(tmp_path / 'small'))


def test_a_preset_that_the_checkpoint_is_not_is_refused(tmp_path):
  small = tiny_decoder(vocab_size=5)
  weights_folder.save_weights(tmp_path, small, random_params(small), b'tokenizer')
  config = config_of(tmp_path)
  config.model.preset = 'smollm2_135m'
  with pytest.raises(ValueError, match='is no smollm2_135m: vocab_size is 5, not 49152'):
    base_model.make_decoder_config(config)
  config.model.preset = 'nonsense'
  with pytest.raises(ValueError, match="'nonsense' is none of"):
    base_model.make_decoder_config(config)


def test_the_embedded_policy_loads():
  base = base_model.load_base(config_of('embedded'), make_mesh((-1, 1, 1), jax.devices()[:1]))
  assert base.tokenizer.vocab_size == base.decoder.config.vocab_size
  text = '4 +7 ? +7 = 1 again -7 4 -4 0'
  assert base.tokenizer.decode(base.tokenizer.encode(text)) == text
  folder = base_model.EMBEDDED
  assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000


@pytest.mark.parametrize(
  ('kernel', 'backend', 'dtype', 'head_dim', 'why'),
  [
    ('splash', 'gpu', 'bfloat16', 64, "runs on 'tpu', not on 'gpu'"),
    ('cudnn', 'cpu', 'bfloat16', 64, "runs on 'gpu', not on 'cpu'"),
    ('cudnn', 'gpu', 'float32', 64, "computes in 'bfloat16', not in 'float32'"),
    ('cudnn', 'gpu', 'bfloat16', 12, 'takes heads of a multiple of 8 up to 128, not of 12'),
  ],
)
def test_a_kernel_that_cannot_run_is_refused(kernel, backend, dtype, head_dim, why):
  model = default_config().model
  model.attention, model.dtype = kernel, dtype
  with pytest.raises(ValueError, match=f"config.model.attention='{kernel}' {why}; take 'auto'"):
    decoder = base_model.run_config(tiny_decoder(head_dim=head_dim), model, backend)
    base_model.check_kernel(decoder, backend)


SHARDED = """
import sys, jax, numpy as np
from score_jax.core import sharding
from score_jax.core.config import default_config
from score_jax.formats import hf_folder
from score_jax.setup import base_model
config = default_config()
config.model.checkpoint = sys.argv[1]
base = base_model.load_base(config, sharding.make_mesh((1, 2, 1)))
q = base.params['layers']['attn']['q']
assert [s.data.shape for s in q.addressable_shards] == [(3, 4, 2, 4)] * 2, q.sharding
want = hf_folder.read_params(sys.argv[1], base.decoder.config)
jax.tree.map(np.testing.assert_array_equal, base.params, want)
"""


def test_parameters_go_to_their_shards(tmp_path, run_python):
  write_base_model(tmp_path / 'base')
  done = run_python('-c', SHARDED, tmp_path / 'base', devices=2)
  assert done.returncode == 0, done.stderr
