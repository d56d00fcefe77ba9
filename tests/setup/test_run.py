"""From a config to the values of a run: what an update reads, turns that fit each other."""

import dataclasses
import json
import tempfile
from unittest import mock

import jax
import pytest
from jax.sharding import AbstractMesh
from makers import with_flags
from small_models import Digits

from score_jax.core.config import default_config, read_config
from score_jax.objective.stages import stage2
from score_jax.planning.shapes import planned_run
from score_jax.rollout.layout import RolloutSpec
from score_jax.setup import run as setup_run
from score_jax.setup.run import make_rollout_spec, make_stage, make_training_spec


def config_of(**changes):
  config = default_config()
  config.model.preset = 'smollm2_135m'
  config.stage.update(dataclasses.asdict(stage2(10.0, 0.01)) | changes)
  return config


def run_of(config):
  return planned_run(config, AbstractMesh((1, 1, 1), ('data', 'fsdp', 'tensor')), 3)


@pytest.mark.parametrize('rank', [0, 2])
def test_an_update_reads_the_reference_and_what_adapters_lie_beside(rank):
  config = config_of(reference='base')
  config.lora.rank = rank
  run = run_of(config)
  start = {'start': jax.ShapeDtypeStruct((1,), 'float32')}
  assert run.frozen(start)['reference'] is run.base.params
  assert run.frozen(start)['base'] == (run.base.params if rank else {})
  assert run_of(config_of(reference='init')).frozen(start)['reference'] is start


def test_kl_weights_that_follow_a_target_are_part_of_the_state():
  assert run_of(config_of()).num_adapted == 0
  adaptive = run_of(config_of(kl_target_nats=(1.0, 1.0)))
  assert adaptive.num_adapted == 2
  assert make_stage(adaptive.config).kl_target_nats == (1.0, 1.0)


def test_an_episode_is_laid_out_from_config_and_tokenizer():
  """Each turn has its budget, each instruction its place, and any of the ends ends a turn."""
  config = default_config()
  config.rollout.prompt_tokens = 9
  tokenizer = Digits()
  tokenizer.end_of_turn_ids = (9, 8)
  spec = make_rollout_spec(config, ['12', '345'], tokenizer, [3, 5, 4])
  assert spec == RolloutSpec(9, (3, 5, 4), ((1, 2), (3, 4, 5)), (9, 8), top_k=0, top_p=1.0)


def test_as_many_budgets_as_turns():
  config = config_of()
  config.rollout.turn_tokens = (4, 4, 4)
  with pytest.raises(ValueError, match=r'\(4, 4, 4\) has 3 turns, config.stage.* has 2'):
    make_training_spec(config, None, None)


# Each with a mistake that is seen without the model's weights, and what is said of it.
MISTAKES = {
  'rollout.temperature=0': 'rollout.temperature=0.0 must be above 0',
  'rollout.samples_per_problem=1': 'samples_per_problem=1 must be at least 2',
  'rollout.turn_tokens=(4,)': 'has 1 turns, config.stage.reward_weight has 2',
  'rollout.prompt_tokens=1': 'prompt_tokens=1 is too small for every problem',
  'rollout.problems_per_step=1000': 'problems_per_step=1000',
  'train.micro_batches=7': 'do not divide by 1 devices',
  'objective.baseline=mean': "baseline='mean' is none of rloo, rloo_given_r1, none",
  'objective.kl_estimator=k1': "kl_estimator='k1': k1 = log",
  'objective.kl_credit=all': "kl_credit='all' is none of",
  'optimizer.schedule=linear': "schedule='linear' is neither",
  'optimizer.schedule=cosine': 'decay_steps=0 must be above warmup_steps=0',
  'optimizer.mu_dtype=int8': "mu_dtype='int8' is neither",
  'lora.rank=2 lora.targets=head': 'targets=head must be some of q, k, v',
  'model.attention=splash': "attention='splash' runs on 'tpu'",
  'model.preset=gemma2_2b': 'is no gemma2_2b: vocab_size is 34, not 256000',
  'model.checkpoint=FOLDER': 'config.json is missing',
  'chat.date=today': "chat.date='today' is no date",
  'chat.template=FOLDER/file': 'a weights folder without a chat format',
  'mesh=(2,1,1)': 'does not fit 1 devices',
  'task.name=nothing': "task.name='nothing' is none of arithmetic",
  'task.name=json:dumps': 'TypeError: Object of type ConfigDict is not JSON',
  "task.level_weights={'x':1.0}": 'must give numbers of addends from 2 on weights above 0',
  "task.level_weights={'1':1.0}": 'must give numbers of addends from 2 on weights above 0',
  "task.level_weights={'5':-1.0}": 'must give numbers of addends from 2 on weights above 0',
  'init.path=FOLDER': 'config.init.path=FOLDER is neither a run directory',
  'init.path=FOLDER/file': 'is a file: name a run directory',
  'supervised.method=star supervised.num_problems=1000': 'num_problems=1000, but there are 100',
  'supervised.method=star rollout.turn_tokens=(4,4,4) stage.reward_weight=(0,1,1) '
  'stage.kl_weight=(0,0,0) stage.bonus=(0,0,0)': 'have two turns, not 3',
}


@pytest.mark.parametrize('flags', MISTAKES)
def test_a_mistake_is_said_before_the_model_is_loaded(flags, tiny_run, tmp_path, monkeypatch):
  monkeypatch.setattr(setup_run, 'load_base', lambda *_: pytest.fail('the model was loaded'))
  (tmp_path / 'file').write_text('x')
  line = [f'--config.{flag}'.replace('FOLDER', str(tmp_path)) for flag in flags.split()]
  config = with_flags(read_config(str(tiny_run)), line)
  with pytest.raises(ValueError) as error:
    setup_run.prepare(config)
  assert MISTAKES[flags].replace('FOLDER', str(tmp_path)) in str(error.value)


@pytest.mark.parametrize(
  ('made', 'message'),
  [
    ('config', '\n  seed: 7 in the run, 0 now\n'),
    ('problems', "content.problems: 'other' in the run"),
    ('checkpoints', 'holds checkpoints but no config.json'),
    ('file', 'run/x cannot be made: FOLDER/run is not a directory'),
    ('closed', 'run/x cannot be written: FOLDER/run: Permission denied'),
  ],
)
def test_so_is_a_run_directory_of_another_run(made, message, tiny_run, tmp_path, monkeypatch):
  monkeypatch.setattr(setup_run, 'load_base', lambda *_: pytest.fail('the model was loaded'))
  config, workdir = read_config(str(tiny_run)), tmp_path / 'run'
  workdir.mkdir()
  stored = config.to_dict() | {'content': {'base': 'other', 'start': 'other'}}
  if made == 'config':
    (workdir / 'config.json').write_text(json.dumps(stored | {'seed': 7}))
  elif made == 'problems':
    stored['content']['problems'] = 'other'
    (workdir / 'config.json').write_text(json.dumps(stored))
  elif made == 'checkpoints':
    (workdir / 'checkpoints').mkdir()
  elif made == 'file':
    workdir.rmdir()
    workdir.write_text('')
    workdir = workdir / 'x'
  else:  # root may write anywhere, so the system's answer is made up
    refusal = PermissionError(13, 'Permission denied')
    monkeypatch.setattr(tempfile, 'TemporaryFile', mock.Mock(side_effect=refusal))
    workdir = workdir / 'x'
  before = sorted(tmp_path.rglob('*'))
  with pytest.raises(ValueError) as error:
    setup_run.prepare(config, workdir)
  assert message.replace('FOLDER', str(tmp_path)) in str(error.value)
  assert sorted(tmp_path.rglob('*')) == before


def test_what_is_right_is_loaded(tiny_run, tmp_path, monkeypatch):
  monkeypatch.setattr(setup_run, 'load_base', mock.Mock(side_effect=RuntimeError('loaded')))
  with pytest.raises(RuntimeError, match='loaded'):
    setup_run.prepare(read_config(str(tiny_run)), tmp_path / 'new')
  assert not (tmp_path / 'new').exists()
