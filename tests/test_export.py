"""A base model and a run out again, with tokenizer and chat format."""

import dataclasses
import json
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tokenizers
from absl.testing import flagsaver
from small_models import BASE_MODEL, random_params, write_base_model

from score_jax import export as export_program
from score_jax.cli import program
from score_jax.cli.run_input import run_config
from score_jax.core import sharding
from score_jax.core.config import default_config
from score_jax.export import export
from score_jax.formats import hf_folder
from score_jax.model.decoder_config import DecoderConfig
from score_jax.runs.checkpoints import Checkpoints
from score_jax.setup import base_model
from score_jax.setup.checks import missing_inputs


@pytest.fixture
def base(tmp_path):
  """A config whose base model is a Hugging Face folder in bfloat16."""
  write_base_model(tmp_path / 'base')
  config = default_config()
  config.model.checkpoint = str(tmp_path / 'base')
  return config


def load(config):
  return base_model.load_base(config, sharding.make_mesh((1, 1, 1), jax.devices()[:1]))


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


def test_base_model_out_again(base, tmp_path):
  """Bit for bit, with its tokenizer, its token ids and its generation settings."""
  export(base, tmp_path / 'out', dtype='bfloat16')
  before, after = tmp_path / 'base', tmp_path / 'out'
  assert sorted(p.name for p in before.iterdir()) == sorted(p.name for p in after.iterdir())
  for path in after.iterdir():
    assert path.read_bytes() == (before / path.name).read_bytes() or path.name == 'config.json'
  assert json.loads((after / 'config.json').read_text()) | {
    'eos_token_id': 0,
    'pad_token_id': 0,
  } == (json.loads((before / 'config.json').read_text()) | {'eos_token_id': 0, 'pad_token_id': 0})


@pytest.mark.parametrize('named', [256, [256], None])
def test_every_end_of_turn_is_named(base, tmp_path, named):
  """256 is all that the base model's files name; the chat template ends a turn with 257."""
  folder = tmp_path / 'base'
  for file in ('config.json', 'generation_config.json'):
    fields = json.loads((folder / file).read_text()) | {'eos_token_id': named}
    (folder / file).write_text(json.dumps(fields))
  export(base, tmp_path / 'out')
  for file in ('config.json', 'generation_config.json'):
    ends = json.loads((tmp_path / 'out' / file).read_text())['eos_token_id']
    assert ends == [257] + [256] * (named is not None), file
  assert json.loads((tmp_path / 'out' / file).read_text())['temperature'] == 0.6


def test_the_shipped_policy(tmp_path):
  """Its tokenizer needs neither SentencePiece nor protobuf to be read."""
  config = default_config()
  config.model.checkpoint = 'embedded'
  export(config, tmp_path / 'out')
  backend = tokenizers.Tokenizer.from_file(str(tmp_path / 'out' / 'tokenizer.json'))
  assert backend.encode('+4 5 x y').tokens == ['▁+4', '▁5', '<unk>']
  config = json.loads((tmp_path / 'out' / 'tokenizer_config.json').read_text())
  assert config['eos_token'] == '</s>' and config['tokenizer_class'] == 'PreTrainedTokenizerFast'


@pytest.fixture
def run(base, tmp_path):
  """A run's directory with two checkpoints; the first has the better reward."""
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'config.json').write_text(base.to_json())
  with Checkpoints(tmp_path / 'run' / 'checkpoints') as checkpoints:
    for step, reward in ((1, 0.9), (2, 0.1)):
      checkpoints.save(
        step, {'trainable': random_params(BASE_MODEL, step)}, metadata={}, reward=reward
      )
      checkpoints.wait()
  return tmp_path / 'run'


def test_the_kernel_of_another_backend_is_no_concern(run, tmp_path):
  config = run_config(run)
  config.model.attention = 'splash'
  export(config, tmp_path / 'out', str(run), 'latest')
  assert hf_folder.read_config(tmp_path / 'out') == BASE_MODEL


@pytest.mark.parametrize(('which', 'step'), [('best', 1), ('latest', 2)])
def test_run_to_hugging_face(base, run, tmp_path, which, step):
  export(run_config(run), tmp_path / 'out', str(run), which)
  config = hf_folder.read_config(tmp_path / 'out')
  assert config == BASE_MODEL
  jax.tree.map(
    np.testing.assert_array_equal,
    hf_folder.read_params(tmp_path / 'out', config),
    random_params(BASE_MODEL, step),
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
  jax.tree.map(np.testing.assert_array_equal, params, random_params(BASE_MODEL, 1))
  sizes = json.loads((tmp_path / 'out' / 'decoder.json').read_text())
  assert DecoderConfig(**sizes) == BASE_MODEL
  assert (tmp_path / 'out' / 'tokenizer.json').exists()


def test_a_damaged_best_checkpoint_is_not_exported_as_another(base, run, tmp_path):
  (run / 'checkpoints' / '1' / 'state' / 'manifest.ocdbt').write_bytes(b'')
  with pytest.raises(
    ValueError, match='(?s)of step 1, is damaged: .*Whole: step 2 .*--which=latest'
  ):
    export(base, tmp_path / 'out', str(run))
  assert not (tmp_path / 'out').exists()
  for number, asked in enumerate(((str(run), 'latest'), (str(run / 'checkpoints' / '2'), 'best'))):
    export(run_config(asked[0]), tmp_path / f'out{number}', *asked)
    params = hf_folder.read_params(tmp_path / f'out{number}', BASE_MODEL)
    jax.tree.map(np.testing.assert_array_equal, params, random_params(BASE_MODEL, 2))


def test_run_of_another_model(base, tmp_path):
  other = dataclasses.replace(BASE_MODEL, mlp_dim=16)
  with Checkpoints(tmp_path / 'run' / 'checkpoints') as checkpoints:
    checkpoints.save(1, {'trainable': random_params(other)}, metadata={}, reward=0.0)
    checkpoints.wait()
  with pytest.raises(ValueError, match='are not those of its base model'):
    export(base, tmp_path / 'out', str(tmp_path / 'run'))
  assert not (tmp_path / 'out').exists()


def test_program(run, tmp_path, run_python, monkeypatch, capsys):
  """The command line, and what it says where something is missing."""
  arguments = [f'--run={run}', f'--workdir={tmp_path}/out']
  done = run_python('-m', 'score_jax.export', *arguments)
  assert done.returncode == 0 and f'is in {tmp_path}/out' in done.stdout, done.stderr
  assert hf_folder.read_config(tmp_path / 'out') == BASE_MODEL
  for given, message in ((arguments, 'is there already'), (arguments[:1], '--workdir is not set')):
    monkeypatch.setattr(sys, 'argv', ['export', *given])
    with flagsaver.flagsaver(), pytest.raises(SystemExit, match='2'):
      program.run_program(export_program._body)
    assert message in capsys.readouterr().err
