"""What the paper compares SCoRe with, and what it removes, on any task: one config for each.

The argument is the method, and behind a comma the config of Stage I that it takes the task and the
setting from (`stage1_math` by default, with that config's own preset behind a colon):

    python -m score_jax.main --config=configs/baselines.py:star_d \
      --config.model.checkpoint=CHECKPOINT --config.data.path=DATA --workdir=runs/star_d
    python -m score_jax.main --config=configs/baselines.py:pair_sft_dplus,stage1_math:smollm2_135m \
      --config.model.checkpoint=SmolLM2-135M-Instruct.Q4_1.gguf --config.data.path=DATA \
      --workdir=runs/pair_sft
    python -m score_jax.evaluate --config=configs/baselines.py:self_refine,stage1_sums \
      --config.model.checkpoint=SmolLM2-135M-Instruct.Q4_1.gguf

| argument | what |
|---|---|
| `self_refine` | answer, feedback to oneself, answer: an evaluation, nothing is trained |
| `star_d`, `star_dplus` | STaR, three iterations |
| `pair_sft_d`, `pair_sft_dplus` | Pair-SFT, one epoch |
| `single_turn_rl` | RL on one answer; evaluated with two turns |
| `multiturn_rl` | RL, reward on both turns |
| `last_turn_rl` | RL, reward on the last turn: the paper's "standard multi-turn RL" |
| `random_reward` | multi-turn RL whose rewards are random |
| `no_stage1` | Stage II from the base model |
| `no_bonus` | Stage II without the bonus; needs --config.init.path, as those below |
| `star_stage2` | STaR in place of Stage II |
| `off_policy_turn1` | Stage II, every first attempt the base model's |

Rows of RL take Stage I's number of updates twice, as many as both stages. All of them at once, on
generated sums: `replicate_arithmetic.py`. Expected numbers at this setting: not yet run.
"""

import dataclasses

from ml_collections import ConfigDict

from score_jax.core.config import read_config
from score_jax.objective import stages

ALPHA, BETA1 = 10.0, 0.01
_SUPERVISED = {
  'star_d': dict(method='star', keep_correct=False, iterations=3),
  'star_dplus': dict(method='star', keep_correct=True, iterations=3),
  'pair_sft_d': dict(method='pair_sft', keep_correct=False),
  'pair_sft_dplus': dict(method='pair_sft', keep_correct=True),
  'star_stage2': dict(method='star', keep_correct=True, iterations=3),
}
_STAGES = {
  'self_refine': stages.multiturn_rl(BETA1),
  'single_turn_rl': stages.single_turn_rl(BETA1),
  'multiturn_rl': stages.multiturn_rl(BETA1),
  'last_turn_rl': stages.last_turn_rl(BETA1),
  'random_reward': stages.multiturn_rl(BETA1),
  'no_stage1': stages.stage2(ALPHA, BETA1),
  'no_bonus': stages.multiturn_rl(BETA1),
  'off_policy_turn1': stages.stage2(ALPHA, BETA1),
}
_AFTER_STAGE1 = ('no_bonus', 'star_stage2', 'off_policy_turn1')


def get_config(argument: str = 'multiturn_rl,stage1_math') -> ConfigDict:
  """Makes the config of a method.

  Args:
    argument: the method, and behind a comma a config of Stage I.

  Returns:
    The config.

  Raises:
    ValueError: for another method, or a config that is not there.
  """
  name, _, source = argument.partition(',')
  if name not in _STAGES | _SUPERVISED:
    names = ', '.join(_STAGES | _SUPERVISED)
    raise ValueError(f'configs/baselines.py:{argument}: the method is none of {names}')
  source, _, preset = (source or 'stage1_math').partition(':')
  c = read_config(f'{source}.py:{preset}', beside=__file__)
  stage = dataclasses.replace(_STAGES.get(name, stages.multiturn_rl(BETA1)), name=name)
  c.stage.update(dataclasses.asdict(stage))
  c.supervised.update(_SUPERVISED.get(name, {}))
  c.init.required = name in _AFTER_STAGE1
  if not c.init.required:
    c.train.num_steps *= 2
  if name == 'self_refine':
    c.eval.protocol = 'self_refine'
  if name == 'random_reward':
    c.train.random_reward = 0.5
  if name == 'off_policy_turn1':
    c.rollout.base_turn1_share = 1.0
  if name == 'single_turn_rl':
    c.eval.turn_tokens = c.rollout.turn_tokens
    c.rollout.turn_tokens = c.rollout.turn_tokens[:1]
  return c
