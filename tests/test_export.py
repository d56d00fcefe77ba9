"""A folder as the base model, and a run out again: through the programs' own functions."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from score_jax.cli.run_input import run_config
from score_jax.core import sharding
from score_jax.core.config import default_config
from score_jax.export import export
from score_jax.formats import hf_export, hf_folder
from score_jax.model.decoder import abstract_params
from score_jax.model.decoder_config import DecoderConfig
from score_jax.model.presets import PRESETS
from score_jax.runs.checkpoints import Checkpoints
from score_jax.setup import base_model
from score_jax.setup.checks import missing_inputs

TEMPLATE = (
  "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
  "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MODEL = dataclasses.replace(
  PRESETS['gemma2_2b'],
  vocab_size=260,
  num_layers=3,
  embed_dim=8,
  mlp_dim=12,
  num_heads=2,
  num_kv_heads=1,
  head_dim=4,
  window=4,
)


def draw(config, seed=0):
  rng = np.random.default_rng(seed)
  shapes, _ = abstract_params(config)
  return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def tokenizer_files():
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  backend = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = decoders.ByteLevel()
  backend.add_special_tokens(['<|im_start|>', '<|im_end|>'])
  return {
    'tokenizer.json': backend.to_str().encode(),
    'tokenizer_config.json': json.dumps({'eos_token': '<|im_end|>'}).encode(),
    'chat_template.jinja': TEMPLATE.encode(),
  }


@pytest.fixture
def base(tmp_path):
  """A config whose base model is a Hugging Face folder in bfloat16."""
  folder = tmp_path / 'base'
  generation = {'eos_token_id': [257], 'temperature': 0.6}
  hf_export.write_folder(
    folder,
    MODEL,
    draw(MODEL),
    jnp.bfloat16,
    {'bos_token_id': 256, 'max_position_embeddings': 99},
    generation,
    tokenizer_files(),
  )
  config = default_config()
  config.model.checkpoint = str(folder)
  return config


def load(config):
  return base_model.load_base(config, sharding.make_mesh((1, 1, 1), jax.devices()[:1]))


def test_a_folder_is_a_base_model(base):
  found = load(base)
  assert found.decoder.config == MODEL
  assert found.tokenizer.prompt_ids('A')[:1] == [256] and found.tokenizer.end_of_turn_ids == (257,)
  want = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(np.float32), draw(MODEL))
  jax.tree.map(np.testing.assert_array_equal, found.params, want)


def test_a_tokenizer_that_does_not_fit_is_seen_before_weights_are_read(base, monkeypatch):
  small = dataclasses.replace(MODEL, vocab_size=255)
  folder = epath_of(base).parent / 'small'
  hf_export.write_folder(folder, small, draw(small), files=tokenizer_files())
  base.model.checkpoint = str(folder)
  monkeypatch.setattr('score_jax.formats.safetensors_file.Tensor.read', None)
  with pytest.raises(ValueError, match='tokenizer.json.*255'):
    load(base)


def epath_of(config):
  return hf_folder.epath.Path(config.model.checkpoint)


def test_the_chat_format_of_the_config(base, tmp_path):
  """Another template, a template's variables and its date."""
  template = tmp_path / 'chat.jinja'
  template.write_text(
    "{% for m in messages %}{{ m.content }}{{ '<|im_end|>' }}{% endfor %}"
    "{{ strftime_now('%Y') }}{% if shout is defined %}!{% endif %}"
  )
  own = load(base).tokenizer.prompt_ids('Two?')
  base.chat.template = str(template)
  base.chat.date = '2031-05-05'
  found = load(base).tokenizer
  assert found.prompt_ids('Two?') == [*found.encode('Two?'), 257, *found.encode('2031')] != own
  base.chat.options.shout = True
  assert load(base).tokenizer.prompt_ids('Two?')[-1:] == found.encode('!')
  export(base, tmp_path / 'out')
  base.model.checkpoint, base.chat.template = str(tmp_path / 'out'), ''
  assert load(base).tokenizer.prompt_ids('Two?')[: len(found.encode('Two?'))] == (
    found.encode('Two?')
  )
  base.chat.template = str(template)
  base.chat.date = '5 May'
  with pytest.raises(ValueError, match="config.chat.date='5 May' is no date such as"):
    load(base)
  base.chat.template = str(tmp_path / 'nothing')
  base.chat.date = '2031-05-05'
  assert any('--config.chat.template=PATH' in line for line in missing_inputs(base))


def test_another_model_than_the_preset(base):
  base.model.preset = 'gemma2_2b'
  with pytest.raises(ValueError, match='is no gemma2_2b: vocab_size is 260, not 256000'):
    load(base)


def test_base_model_out_again(base, tmp_path):
  """Bit for bit, with its tokenizer, its token ids and its generation settings."""
  export(base, tmp_path / 'out', dtype='bfloat16')
  before, after = epath_of(base), tmp_path / 'out'
  assert sorted(p.name for p in before.iterdir()) == sorted(p.name for p in after.iterdir())
  for path in after.iterdir():
    assert path.read_bytes() == (before / path.name).read_bytes() or path.name == 'config.json'
  assert json.loads((after / 'config.json').read_text()) | {
    'eos_token_id': 0,
    'pad_token_id': 0,
  } == (json.loads((before / 'config.json').read_text()) | {'eos_token_id': 0, 'pad_token_id': 0})


@pytest.fixture
def run(base, tmp_path):
  """A run's directory with two checkpoints; the first has the better reward."""
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'config.json').write_text(base.to_json())
  with Checkpoints(tmp_path / 'run' / 'checkpoints') as checkpoints:
    for step, reward in ((1, 0.9), (2, 0.1)):
      checkpoints.save(step, {'trainable': draw(MODEL, step)}, metadata={}, reward=reward)
      checkpoints.wait()
  return tmp_path / 'run'


def test_the_kernel_of_another_backend_is_no_concern(run, tmp_path):
  config = run_config(run)
  config.model.attention = 'splash'
  export(config, tmp_path / 'out', str(run), 'latest')
  assert hf_folder.read_config(tmp_path / 'out') == MODEL


@pytest.mark.parametrize(('which', 'step'), [('best', 1), ('latest', 2)])
def test_run_to_hugging_face(base, run, tmp_path, which, step):
  export(run_config(run), tmp_path / 'out', str(run), which)
  config = hf_folder.read_config(tmp_path / 'out')
  assert config == MODEL
  jax.tree.map(
    np.testing.assert_array_equal,
    hf_folder.read_params(tmp_path / 'out', config),
    draw(MODEL, step),
  )
  base.model.checkpoint = str(tmp_path / 'out')
  again = load(base)
  assert again.tokenizer.prompt_ids('Two?') == [256, *again.tokenizer.encode('user\nTwo?'), 257] + (
    again.tokenizer.encode('\n<|im_start|>assistant\n')
  )


def test_run_to_orbax(base, run, tmp_path):
  export(base, tmp_path / 'out', str(run), layout='orbax')
  with ocp.StandardCheckpointer() as checkpointer:
    params = checkpointer.restore(tmp_path / 'out' / 'params')
  jax.tree.map(np.testing.assert_array_equal, params, draw(MODEL, 1))
  sizes = json.loads((tmp_path / 'out' / 'decoder.json').read_text())
  assert DecoderConfig(**sizes) == MODEL
  assert (tmp_path / 'out' / 'tokenizer.json').exists()


def test_run_of_another_model(base, tmp_path):
  other = dataclasses.replace(MODEL, mlp_dim=16)
  with Checkpoints(tmp_path / 'run' / 'checkpoints') as checkpoints:
    checkpoints.save(1, {'trainable': draw(other)}, metadata={}, reward=0.0)
    checkpoints.wait()
  with pytest.raises(ValueError, match='are not those of its base model'):
    export(base, tmp_path / 'out', str(tmp_path / 'run'))
  assert not (tmp_path / 'out').exists()


def test_program(run, tmp_path, run_python):
  """The command line, and what it says where something is missing."""
  arguments = ('-m', 'score_jax.export', f'--run={run}')
  done = run_python(*arguments, f'--workdir={tmp_path}/out')
  assert done.returncode == 0 and f'is in {tmp_path}/out' in done.stdout, done.stderr
  assert hf_folder.read_config(tmp_path / 'out') == MODEL
  done = run_python(*arguments, f'--workdir={tmp_path}/out')
  assert done.returncode == 2 and 'is there already' in done.stderr
  done = run_python(*arguments)
  assert done.returncode == 2 and '--workdir is not set' in done.stderr


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


def test_parameters_go_to_their_shards(base, run_python):
  done = run_python('-c', SHARDED, base.model.checkpoint, devices=2)
  assert done.returncode == 0, done.stderr
