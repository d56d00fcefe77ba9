"""Each comparison of the paper is a config that resolves, on any task."""

import pytest
from makers import ROOT

from score_jax.core.config import read_config
from score_jax.core.config_check import check_config
from score_jax.setup import run as setup_run
from score_jax.training.traces import METHODS

CONFIGS = ROOT / 'configs'
# Reward weights, bonus, updates over Stage I's, and whether it starts from Stage I.
RL = {
  'single_turn_rl': ((1.0,), (0.0,), 2, False),
  'multiturn_rl': ((1.0, 1.0), (0.0, 0.0), 2, False),
  'last_turn_rl': ((0.0, 1.0), (0.0, 0.0), 2, False),
  'random_reward': ((1.0, 1.0), (0.0, 0.0), 2, False),
  'no_stage1': ((1.0, 1.0), (0.0, 10.0), 2, False),
  'no_bonus': ((1.0, 1.0), (0.0, 0.0), 1, True),
  'off_policy_turn1': ((1.0, 1.0), (0.0, 10.0), 1, True),
}
SUPERVISED = {
  'star_d': ('star', False, 3, False),
  'star_dplus': ('star', True, 3, False),
  'pair_sft_d': ('pair_sft', False, 1, False),
  'pair_sft_dplus': ('pair_sft', True, 1, False),
  'star_stage2': ('star', True, 3, True),
}


@pytest.mark.parametrize('source', ['stage1_math', 'stage1_math:smollm2_135m', 'stage1_code'])
@pytest.mark.parametrize('name', RL)
def test_rl(name, source):
  config = read_config(f'{CONFIGS}/baselines.py:{name},{source}')
  check_config(config)
  stage = setup_run.make_stage(config)
  weights, bonus, times, is_second = RL[name]
  assert (stage.reward_weight, stage.bonus, stage.name) == (weights, bonus, name)
  assert set(stage.kl_weight) == {0.01}
  start, _, preset = source.partition(':')
  stage1 = read_config(f'{CONFIGS}/{start}.py:{preset}')
  assert config.train.num_steps == times * stage1.train.num_steps
  assert config.init.required == is_second
  assert config.rollout.turn_tokens == stage1.rollout.turn_tokens[: len(weights)]
  # All are evaluated with the two turns of the task.
  budgets = config.eval.turn_tokens or config.rollout.turn_tokens
  assert budgets == stage1.rollout.turn_tokens
  assert config.train.random_reward == (0.5 if name == 'random_reward' else 0.0)
  assert config.rollout.base_turn1_share == (1.0 if name == 'off_policy_turn1' else 0.0)


@pytest.mark.parametrize('name', SUPERVISED)
def test_supervised(name):
  config = read_config(f'{CONFIGS}/baselines.py:{name},stage1_sums')
  check_config(config)
  o = config.supervised
  method, keep_correct, iterations, is_second = SUPERVISED[name]
  assert (o.method, o.keep_correct, o.iterations, o.epochs) == (method, keep_correct, iterations, 1)
  assert method in METHODS and config.init.required == is_second
  assert len(config.rollout.turn_tokens) == 2


def test_self_refine_is_an_evaluation():
  config = read_config(f'{CONFIGS}/baselines.py:self_refine,stage1_sums')
  assert config.eval.protocol == 'self_refine'


@pytest.mark.parametrize(
  ('argument', 'wrong'),
  [
    ('sft', 'baselines.py:sft'),
    ('star_d,stage9_math', 'stage9_math'),
    ('star_d,stage1_math:gpt2', 'gpt2'),
  ],
)
def test_other_arguments_are_refused(argument, wrong):
  with pytest.raises(ValueError, match=wrong):
    read_config(f'{CONFIGS}/baselines.py:{argument}')
