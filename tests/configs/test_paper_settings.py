"""What the configs and stages say is what the paper says: its equations and Table 5, typed here."""

import pytest
from makers import ROOT

from score_jax.core.config import read_config
from score_jax.core.config_check import check_config
from score_jax.objective import stages
from score_jax.replication.rows import read_rows
from score_jax.setup.run import make_stage

# Reward, KL and bonus of each turn; whom the policy is held near.
EQUATIONS = {
  'stage1': (stages.stage1(0.01, 0.1), (0, 1), (0.1, 0.01), (0, 0), 'base'),
  'stage2': (stages.stage2(10.0, 0.01), (1, 1), (0.01, 0.01), (0, 10), 'base'),
  'multiturn_rl': (stages.multiturn_rl(0.01), (1, 1), (0.01, 0.01), (0, 0), 'base'),
  'last_turn_rl': (stages.last_turn_rl(0.01), (0, 1), (0.01, 0.01), (0, 0), 'base'),
  'single_turn_rl': (stages.single_turn_rl(0.01), (1,), (0.01,), (0,), 'base'),
  # Stage Ib holds turns 1 and 2 near Stage Ia's result, from which it starts.
  'stage1b': (stages.stage1b(0.01, 0.1), (0, 0, 1), (0.1, 0.1, 0.01), (0, 0, 0), 'init'),
  'stage2_of_three_turns': (
    stages.stage2_of_three_turns(10.0, 0.01),
    *((1, 1, 1), (0.01,) * 3, (0, 10, 10), 'base'),
  ),
}


def numbers(stage):
  """What an equation says of a stage; credit is per turn and weights are fixed in all of them."""
  assert (stage.discount, stage.kl_target_nats) == (0.0, ())
  return stage.reward_weight, stage.kl_weight, stage.bonus, stage.reference


@pytest.mark.parametrize('name', EQUATIONS)
def test_a_stage_is_its_equation(name):
  stage, *want = EQUATIONS[name]
  assert (stage.name, numbers(stage)) == (name, tuple(want))


# Learning rate, steps of a stage, episodes of a step; then as above.
TABLE_5 = {
  'stage1_math': (5e-6, 3000 / 2, 512, (0, 1), (0.1, 0.01), (0, 0), 'base'),
  'stage2_math': (5e-6, 3000 / 2, 512, (1, 1), (0.01, 0.01), (0, 10), 'base'),
  'stage1_code': (1e-5, 1500 / 2, 128, (0, 1), (0.25, 0.01), (0, 0), 'base'),
  'stage2_code': (1e-5, 1500 / 2, 128, (1, 1), (0.01, 0.01), (0, 10), 'base'),
}


@pytest.mark.parametrize('name', TABLE_5)
def test_a_config_has_the_papers_settings(name):
  config = read_config(f'{ROOT}/configs/{name}.py')
  check_config(config)
  rate, num_steps, episodes, *stage = TABLE_5[name]
  o, r = config.optimizer, config.rollout
  assert (o.learning_rate, o.schedule, o.warmup_steps, o.weight_decay) == (rate, 'constant', 0, 0.0)
  assert (o.b1, o.b2, o.eps, o.clip_norm) == (0.9, 0.999, 1e-8, 1.0)
  assert config.train.num_steps == num_steps
  assert r.problems_per_step * r.samples_per_problem == episodes
  assert (r.temperature, config.eval.temperature, r.base_turn1_share) == (1.0, 0.0, 0.0)
  assert numbers(make_stage(config)) == tuple(stage)
  objective = config.objective
  assert (objective.baseline, objective.kl_estimator, objective.kl_credit) == (
    *('rloo', 'exact', 'turn'),
  )
  # Stage II needs Stage I's run, and starts from its best checkpoint.
  assert (config.init.required, config.init.which) == (name.startswith('stage2'), 'best')


@pytest.mark.parametrize('file', ['replicate_arithmetic', 'quickstart'])
def test_rows_are_held_near_the_base_model(file):
  """All but Stage Ib's; and a row that starts from another one takes its best checkpoint."""
  config = read_config(f'{ROOT}/configs/{file}.py')
  held = {row.name: row.stage.reference for row in read_rows(config).values()}
  assert [name for name, reference in held.items() if reference != 'base'] == (
    ['three_stage1b'] if file == 'replicate_arithmetic' else []
  )
  assert config.run.init.which == 'best'
