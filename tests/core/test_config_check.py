"""Which configs are refused, and that every fault is named."""

import re

import pytest
from ml_collections import ConfigDict

from score_jax.core.config import default_config
from score_jax.core.config_check import check_config, profile_steps


def test_check_config_takes_the_defaults():
  config = default_config()
  check_config(config)
  config.optimizer.learning_rate = 1  # an int where a float is wanted
  config.stage.kl_weight = (1, 0.5, 0)  # of any length
  config.rollout.turn_tokens = [4, 8]
  config.task.level_weights = ConfigDict({'3': 0.5, '4': 0.5})  # its names are data
  config.chat.options.enable_thinking = False  # these too
  check_config(config)


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('train.num_step', 5, r'config\.train\.num_step: no such key'),
    ('trian.num_steps', 5, r'config\.trian\.num_steps: no such key'),
    ('train', 5, r'config\.train: no such key'),
    ('train.num_steps', '5', r"config\.train\.num_steps='5' is a str, not a int"),
    ('train.num_steps', 5.0, r'config\.train\.num_steps=5\.0 is a float'),
    ('train.num_steps', True, r'config\.train\.num_steps=True is a bool'),
    ('train.num_steps', None, r'config\.train\.num_steps=None'),
    ('train.progress', 1, r'config\.train\.progress=1 is a int, not a bool'),
    ('optimizer.learning_rate', True, r'config\.optimizer\.learning_rate=True is a bool'),
    ('optimizer.learning_rate', '1e-5', r"config\.optimizer\.learning_rate='1e-5' is a str"),
    ('model.preset', 1, r'config\.model\.preset=1 is a int, not a str'),
    ('rollout.turn_tokens', 16, r'config\.rollout\.turn_tokens=16 is a int, not a tuple'),
    ('rollout.turn_tokens', (16, 1.5), r'config\.rollout\.turn_tokens=\(16, 1\.5\)'),
    (
      'stage.bonus',
      (0.0, 'ten'),
      r'config\.stage\.bonus=.* is a tuple of float and str, not a tup',
    ),
    ('mesh', (2.0, 4, 1), r'=\(2\.0, 4, 1\) is a tuple of float and int, not a tuple of int$'),
    ('train.num_steps', 0, r'config\.train\.num_steps=0 must be at least 1'),
    (
      'stage.kl_weight',
      (0.1, -1.0),
      r'config\.stage\.kl_weight=\(0\.1, -1\.0\) must be at least 0',
    ),
    ('optimizer.clip_norm', -1.0, r'config\.optimizer\.clip_norm=-1\.0 must be at least 0'),
    ('optimizer.b1', 1.0, r'config\.optimizer\.b1=1\.0 must be at least 0 and below 1'),
    ('train.random_reward', 1.7, r'config\.train\.random_reward=1\.7 must be from 0 to 1'),
    ('grader.timeout_s', 0, r'config\.grader\.timeout_s=0 must be above 0'),
    ('init.which', 'last', r"config\.init\.which='last' must be 'best' or 'latest'"),
    ('eval.protocol', '', r"config\.eval\.protocol='' must be 'self_correct' or 'self_refine'"),
    ('supervised.method', 'sft', r"method='sft' must be '' or 'star' or 'pair_sft'"),
    ('eval.top_p', 0.0, r'config\.eval\.top_p=0\.0 must be above 0 and at most 1'),
    ('rollout.temperature', float('nan'), r'config\.rollout\.temperature=nan must be finite'),
    ('stage.bonus', (0.0, float('inf')), r'config\.stage\.bonus=\(0\.0, inf\) must be finite'),
  ],
)
def test_check_config_refuses(key, value, message):
  tree = default_config().to_dict()
  *groups, leaf = key.split('.')
  inner = tree
  for group in groups:
    inner = inner.setdefault(group, {})
  inner[leaf] = value
  with pytest.raises(ValueError, match=message):
    check_config(ConfigDict(tree))


def test_check_config_names_every_fault():
  config = default_config()
  del config.seed
  config.model.dtpye = 'bfloat16'
  del config.train.num_steps, config.rollout
  with pytest.raises(ValueError) as error:
    check_config(config)
  lines = [line.strip() for line in str(error.value).splitlines()]
  assert 'config.train.num_steps: missing' in lines
  # Of a part of which nothing is there one line.
  assert [line for line in lines if 'rollout' in line] == ['config.rollout: missing']
  assert 'config.seed: missing' in str(error.value)
  assert 'config.model.dtpye: no such key' in str(error.value)


@pytest.mark.parametrize('window', ['3', '5:3', '0:2', '3:', ':', '3:5:7', '-1:2', '1.5:2', ' 1:2'])
def test_a_bad_window_of_the_profile_is_refused(window):
  complaint = re.escape(f'config.profile={window!r} is not START:END')
  with pytest.raises(ValueError, match=complaint):
    profile_steps(window)
  config = default_config()
  config.profile = window
  with pytest.raises(ValueError, match=complaint):
    check_config(config)


def test_a_good_window_of_the_profile_is_taken():
  assert [profile_steps(window) for window in ('', '1:1', '3:50')] == [None, (1, 1), (3, 50)]
