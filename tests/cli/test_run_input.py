"""A run as the input of a program: the config of a stage."""

import pytest
from makers import ROOT

from score_jax import pipeline
from score_jax.cli.run_input import WHICH, stage_config


def test_the_config_of_a_stage(tmp_path):
  config = str(ROOT / 'configs' / 'stage1_math.py')
  assert stage_config(config, []).train.num_steps == 1500
  overrides = ['--config.train.num_steps=7', '--config.mesh=(1,2,1)', '--config.train.num_steps=9']
  given = stage_config(f'{config}:smollm2_135m', overrides)
  assert given.train.num_steps == 9 and given.mesh == (1, 2, 1)
  with pytest.raises(ValueError, match='num_steps=x'):
    stage_config(config, ['--config.train.num_steps=x'])
  with pytest.raises(ValueError, match='is no config: tuple index out of range'):
    stage_config(config, ['--config.mesh[0]=2', '--config.mesh[7]=2'])
  with pytest.raises(ValueError, match='num_steps=0 must be at least 1'):
    stage_config(config, ['--config.train.num_steps=0'])
  with pytest.raises(ValueError, match="no stage of RL: config.supervised.method='star'"):
    stage_config(f'{ROOT}/configs/baselines.py:star_d', [])


def test_programs_take_the_best_checkpoint(tmp_path):
  """The kept checkpoint is the one with the highest training reward, as in the paper."""
  assert WHICH.default == 'best'
  configs = (f'{ROOT}/configs/stage1_math.py', f'{ROOT}/configs/stage2_math.py')
  commands = [step.command for step in pipeline.make_steps(*configs, tmp_path)]
  assert [command[0] for command in commands] == [
    *['score_jax.main'] * 2,
    'score_jax.evaluate',
    'score_jax.export',
  ]
  assert not any('which' in argument for command in commands for argument in command)
  assert f'--config.init.path={tmp_path}/stage1' in commands[1]
  assert all(f'--run={tmp_path}/stage2' in command for command in commands[2:])
