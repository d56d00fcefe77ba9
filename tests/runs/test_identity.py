"""A run directory belongs to one configuration."""

import json

import pytest

from score_jax.runs import identity

CONFIG = {
  'seed': 0,
  'mesh': {'data': 8},
  'optimizer': {'learning_rate': 5e-6, 'betas': (0.9, 0.999), 'clip': float('inf')},
  'num_steps': 100,
  'meshed': 1,
}
EXEMPT = ('mesh', 'num_steps')


def changed(**updates):
  config = {**CONFIG, 'optimizer': dict(CONFIG['optimizer'])}
  for key, value in updates.items():
    node = config
    *parents, last = key.split('__')
    for parent in parents:
      node = node[parent]
    node[last] = value
  return config


def test_the_same_configuration_goes_on(tmp_path):
  workdir = tmp_path / 'new' / 'run'
  assert identity.check_or_write_config(workdir, CONFIG, EXEMPT) == {}
  before = (workdir / 'config.json').read_bytes()
  assert identity.check_or_write_config(workdir, CONFIG, EXEMPT) == {}
  assert (workdir / 'config.json').read_bytes() == before
  stored = json.loads(before)
  assert stored['optimizer'] == {'learning_rate': 5e-6, 'betas': [0.9, 0.999], 'clip': 'inf'}


def test_exempt_keys_may_change_and_are_told_and_stored(tmp_path):
  identity.check_or_write_config(tmp_path, CONFIG, EXEMPT)
  other = changed(num_steps=200, mesh={'data': 4, 'model': 2})
  assert identity.check_or_write_config(tmp_path, other, EXEMPT) == {
    'mesh.data': (8, 4),
    'mesh.model': ('(absent)', 2),
    'num_steps': (100, 200),
  }
  assert json.loads((tmp_path / 'config.json').read_text())['num_steps'] == 200


@pytest.mark.parametrize(
  'updates, shown',
  [
    ({'optimizer__learning_rate': 1e-5}, 'optimizer.learning_rate: 5e-06 in the run, 1e-05 now'),
    ({'optimizer__betas': (0.9, 0.99)}, r'optimizer.betas: \[0.9, 0.999\] in the run'),
    ({'optimizer__clip': None}, "optimizer.clip: 'inf' in the run, None now"),
    ({'optimizer__eps': 1e-8}, r'optimizer.eps: \(absent\) in the run, 1e-08 now'),
    ({'seed': False}, 'seed: 0 in the run, False now'),
    ({'meshed': 2}, 'meshed: 1 in the run, 2 now'),
  ],
)
def test_other_mathematics_is_refused_and_shown(tmp_path, updates, shown):
  identity.check_or_write_config(tmp_path, CONFIG, EXEMPT)
  before = (tmp_path / 'config.json').read_bytes()
  with pytest.raises(ValueError, match=shown) as error:
    identity.check_or_write_config(tmp_path, changed(**updates, num_steps=7), EXEMPT)
  assert 'num_steps' not in str(error.value) and '--workdir' in str(error.value)
  assert (tmp_path / 'config.json').read_bytes() == before


def test_a_run_without_its_config_is_refused_but_other_files_are_no_concern(tmp_path):
  (tmp_path / 'slurm.log').write_text('hello')
  identity.check_or_write_config(tmp_path, CONFIG)
  (tmp_path / 'config.json').unlink()
  (tmp_path / 'checkpoints').mkdir()
  with pytest.raises(ValueError, match='holds checkpoints but no config.json'):
    identity.check_or_write_config(tmp_path, CONFIG)


def test_a_damaged_config_is_named(tmp_path):
  (tmp_path / 'config.json').write_text('{"seed": 0')
  with pytest.raises(ValueError, match=r'config\.json is damaged'):
    identity.check_or_write_config(tmp_path, CONFIG)


def test_other_processes_check_but_do_not_write(tmp_path):
  identity.check_or_write_config(tmp_path / 'run', CONFIG, is_writer=False)
  assert not (tmp_path / 'run').exists()
  identity.check_or_write_config(tmp_path / 'run', CONFIG)
  with pytest.raises(ValueError, match='seed'):
    identity.check_or_write_config(tmp_path / 'run', changed(seed=1), is_writer=False)


def test_a_checkpoint_lies_in_its_run(tmp_path):
  (tmp_path / 'config.json').write_text('{"seed": 3}')
  for path in (tmp_path, tmp_path / 'checkpoints', tmp_path / 'checkpoints' / '20'):
    assert identity.run_directory(path) == tmp_path
    assert identity.read_run_config(path) == {'seed': 3}
  nowhere = tmp_path / 'a' / 'b' / 'c'
  assert identity.run_directory(nowhere) == nowhere and identity.read_run_config(nowhere) is None
