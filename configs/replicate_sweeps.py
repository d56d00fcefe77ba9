"""The swept rows of `replicate_arithmetic.py`, which need its other rows: no config by itself."""

import dataclasses

from ml_collections import ConfigDict

from score_jax.core.config import read_config
from score_jax.objective import stages
from score_jax.replication.rows import ReplicationRow

# The shared setting is the quickstart's.
_PRETRAIN = read_config('pretrain_arithmetic.py', beside=__file__)
_, _STAGE1_ROW, _STAGE2_ROW, _PLAIN_ROW = read_config('quickstart.py', beside=__file__).rows
STAGE1, STAGE2, PLAIN = _STAGE1_ROW.stage, _STAGE2_ROW.stage, _PLAIN_ROW.stage
STAGE1_STEPS, STAGE2_STEPS = _STAGE1_ROW.num_steps, _STAGE2_ROW.num_steps
BOTH_STEPS, REGIME_STEPS = STAGE1_STEPS + STAGE2_STEPS, 80
ALPHA, BETA1 = STAGE2.bonus[1], STAGE2.kl_weight[1]


def get_config() -> ConfigDict:
  """Makes the rows, of one seed each."""
  return ConfigDict({'rows': (*_number_sweeps(), *_other_sweeps(), *_regimes())})


def _stage2_sweep(name: str, title: str, sweep: str, value, stage=STAGE2, **more):
  more = dict(init='stage1', num_steps=STAGE2_STEPS) | more
  num_steps = more.pop('num_steps')
  more |= dict(sweep=sweep, value=value, seeds=1)
  return ReplicationRow(name, title, 'sweep', stage, num_steps, **more)


def _stage1_sweep(name: str, title: str, sweep: str, value, stage=STAGE1, changes=None):
  more = dict(num_steps=STAGE1_STEPS, init='', schedule='constant', changes=changes or {})
  return _stage2_sweep(name, title, sweep, value, stage, **more)


def _number_sweeps():
  """What the paper gives numbers for, and how the KL is estimated."""
  alphas = tuple(
    _stage2_sweep(f'alpha_{a:g}', f'alpha = {a:g}', 'alpha', a, stages.stage2(a, BETA1))
    for a in (1.0, 3.0, 30.0)
  )
  betas = tuple(
    _stage2_sweep(f'beta1_{b:g}', f'beta1 = {b:g}', 'beta1', b, stages.stage2(ALPHA, b))
    for b in (0.0, 0.1)
  )
  beta2s = tuple(
    _stage1_sweep(f'beta2_{b:g}', f'beta2 = {b:g}', 'beta2', b, stages.stage1(BETA1, b))
    for b in (0.1, 10.0)
  )
  estimators = tuple(
    _stage1_sweep(
      f'kl_{e}_{credit}',
      f'{e}, credit by {credit}',
      'KL estimator (Stage I)',
      f'{e}, {credit}',
      changes={'objective.kl_estimator': e, 'objective.kl_credit': credit},
    )
    for e, credit in (('exact', 'token'), ('k1_reward', 'turn'), ('k2', 'turn'))
  )
  return (*alphas, *betas, *beta2s, *estimators)


def _other_sweeps():
  """The bonus in other forms, and other ways through the stages."""
  weight = stages.Stage('', (1.0, 1.0 + ALPHA), (BETA1, BETA1), (0.0, 0.0))
  bonus = 'bonus or weight, and baseline (Stage II)'
  plain_rloo = {'objective.baseline': 'rloo'}
  bonuses = (
    _stage2_sweep('bonus_rloo', 'bonus, RLOO', bonus, 'bonus, RLOO', changes=plain_rloo),
    _stage2_sweep('weight_given', 'weight 1 + alpha', bonus, 'weight 1 + alpha, given r1', weight),
    _stage2_sweep(
      'weight_rloo',
      'weight 1 + alpha, RLOO',
      bonus,
      'weight 1 + alpha, RLOO',
      weight,
      changes=plain_rloo,
    ),
  )
  discounted = dataclasses.replace(stages.stage2(1.0, BETA1), discount=0.8)
  adaptive = dataclasses.replace(stages.stage1(BETA1, 0.1), kl_target_nats=(0.02, 0.0))
  ways = 'other ways'
  others = (
    _stage2_sweep(
      'discount',
      'gamma = 0.8, alpha = 1',
      ways,
      'gamma = 0.8, alpha = 1',
      discounted,
      init='',
      num_steps=BOTH_STEPS,
    ),
    _stage1_sweep(
      'adaptive_beta2', 'adaptive beta2 (Stage I)', ways, 'adaptive beta2 (Stage I)', adaptive
    ),
    _stage2_sweep(
      'base_turn1_half',
      "half of turn 1 the base model's",
      ways,
      "half of turn 1 the base model's",
      changes={'rollout.base_turn1_share': 0.5},
    ),
  )
  return (*bonuses, *others, *_interleaved(ways))


def _interleaved(sweep: str):
  """The first version of the paper: Stages I and II in turns."""
  half1, half2 = STAGE1_STEPS // 2, STAGE2_STEPS // 2
  part = dict(schedule='constant', seeds=1)
  first, second, third = 'first half of Stage I', 'first half of Stage II', 'second half of Stage I'
  return (
    ReplicationRow('interleaved_1', first, 'part', STAGE1, half1, **part),
    ReplicationRow('interleaved_2', second, 'part', STAGE2, half2, init='interleaved_1', **part),
    ReplicationRow('interleaved_3', third, 'part', STAGE1, half1, init='interleaved_2', **part),
    _stage2_sweep(
      'interleaved',
      'Stages I and II twice',
      sweep,
      'Stages I and II twice',
      init='interleaved_3',
      num_steps=half2,
    ),
  )


def _regimes():
  """Settings in which plain multi-turn RL might collapse, with SCoRe beside it where it does."""
  rloo = {'objective.baseline': 'rloo'}
  levels = 'task.level_weights'
  settings = {
    # There are fewer than 1,000 held-out problems of 3 and 4 terms.
    'easy': ('3 and 4 terms', {levels: {'3': 1.0, '4': 1.0}, 'task.num_test': 512}),
    'hard': ('6 terms only', {levels: {'6': 1.0}}),
    'same_budget': ('12 tokens at both turns', {'rollout.turn_tokens': (12, 12)}),
    'short': ('4 and 12 tokens', {'rollout.turn_tokens': (4, 12)}),
    'fast': ('learning rate 2e-3', {'optimizer.learning_rate': 2e-3}),
    'slow': ('learning rate 2e-5', {'optimizer.learning_rate': 2e-5}),
    'slower': ('learning rate 1e-5', {'optimizer.learning_rate': 1e-5}),
    'few': ('8 problems a step', {'rollout.problems_per_step': 8}),
  }
  learn, habit = (phase.to_dict() for phase in _PRETRAIN.phases)
  mixtures = {
    'rare': (
      'work at turn 2 in 0.15% of the pretraining',
      (learn, habit | dict(worked_t2=0.0015, steps=500)),
    ),
    'shaky': ('400 updates of pretraining', (learn | dict(steps=400), habit)),
  }
  bases = []
  for name, (title, phases) in mixtures.items():
    changes = {'phases': tuple(map(ConfigDict, phases))}
    more = dict(changes=changes, seeds=1, run='pretrain')
    bases.append(ReplicationRow(f'mixture_{name}', title, 'part', PLAIN, **more))
    settings[name] = (title, {'model.checkpoint': f'WORKDIR/mixture_{name}/seed0'})
  rows = [
    ReplicationRow(
      f'regime_{name}',
      f'Multi-turn RL, {title}',
      'regime',
      PLAIN,
      REGIME_STEPS,
      changes=rloo | changes,
      sweep='regime',
      value=title,
      seeds=1,
      after=f'mixture_{name}' if name in mixtures else '',
    )
    for name, (title, changes) in settings.items()
  ]
  return (*bases, *rows, *_slow_score(settings['slow'][0], rloo | settings['slow'][1]))


def _slow_score(title: str, changes):
  """SCoRe, where plain multi-turn RL changes its answers ever less often."""
  more = dict(seeds=1, changes=changes)
  first = ReplicationRow(
    'regime_slow_stage1', 'Stage I, slow', 'part', STAGE1, STAGE1_STEPS, **more
  )
  second = REGIME_STEPS - STAGE1_STEPS
  title = f'SCoRe, {title}'
  return (
    first,
    ReplicationRow(
      'regime_slow_score',
      title,
      'regime',
      STAGE2,
      second,
      init='regime_slow_stage1',
      sweep='regime',
      value=title,
      **more,
    ),
  )
