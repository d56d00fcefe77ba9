"""Config files inherit from each other, wherever one stands; what makes a run another one."""

import pytest

from score_jax.core.config import NOT_IDENTITY, default_config, leaves, read_config

FIRST = """
from ml_collections import ConfigDict
def get_config(size='1'):
  return ConfigDict({'size': int(size), 'deep': {'x': 0.5}})
"""
SECOND = """
from score_jax.core.config import read_config
def get_config(size='3'):
  c = read_config(f'first.py:{size}', beside=__file__)
  c.deep.x = 1.5
  return c
"""


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs' / 'first.py').write_text(FIRST)
  (tmp_path / 'configs' / 'second.py').write_text(SECOND)
  return tmp_path / 'configs'


@pytest.mark.parametrize(('argument', 'size'), [('', 1), (':', 1), (':7', 7)])
def test_a_config_file_takes_its_argument_behind_a_colon(folder, argument, size):
  assert read_config(f'{folder}/first.py{argument}').size == size


def test_a_config_inherits_from_the_one_beside_it(folder, monkeypatch):
  for cwd, file in ((folder, 'second.py'), (folder.parent, 'configs/second.py')):
    monkeypatch.chdir(cwd)
    config = read_config(f'{file}:9')
    assert dict(leaves(config)) == {'config.size': 9, 'config.deep.x': 1.5}
  assert read_config('configs/second.py').size == 3
  # Each reading is a config of its own.
  assert read_config('configs/first.py').deep.x == 0.5


def test_a_file_that_is_not_there_is_named(folder):
  with pytest.raises(ValueError, match=f'there is no config file {folder}/third.py'):
    read_config('third.py:x', beside=str(folder / 'first.py'))
  with pytest.raises(ValueError, match='invalid literal'):
    read_config(f'{folder}/first.py:x')


def test_what_changes_what_is_learnt_is_a_runs_identity():
  """A run that went on with another value of these would be none that a config describes."""
  parts = ('seed', 'stage', 'objective', 'optimizer', 'rollout', 'supervised', 'lora', 'task')
  more = ('train.random_reward', 'model.preset', 'model.dtype', 'model.param_dtype', 'init.which')
  more += ('data.drop_overlap', 'grader.timeout_s', 'grader.memory_bytes')
  keys = [key.removeprefix('config.') for key, _ in leaves(default_config())]
  wanted = [key for key in keys if key.split('.')[0] in parts or key in more]
  wanted.remove('rollout.slots')  # who decodes beside whom, as the mesh
  assert set(more) <= set(wanted)
  free = [key for key in wanted for name in NOT_IDENTITY if f'{key}.'.startswith(f'{name}.')]
  assert free == []
