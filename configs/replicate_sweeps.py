"""The swept rows of `replicate_arithmetic.py`, and what all its rows share. No config by itself."""

import dataclasses

from ml_collections import ConfigDict

from score_jax.objective import stages

STAGE1_STEPS, STAGE2_STEPS = 50, 70
BOTH_STEPS = STAGE1_STEPS + STAGE2_STEPS
REGIME_STEPS = 80
ALPHA, BETA1, BETA2 = 10.0, 0.01, 1.0


def row(name: str, title: str, group: str, stage: stages.Stage, num_steps: int, **more):
  """One row; see `score_jax.replication.rows.ReplicationRow`."""
  changes = tuple(({'optimizer.schedule': 'cosine'} | more.pop('changes', {})).items())
  stage = {k: v for k, v in dataclasses.asdict(stage).items() if k != 'name'}
  return ConfigDict(
    dict(name=name, title=title, group=group, stage=stage, num_steps=num_steps, changes=changes)
    | more
  )


STAGE1 = stages.stage1(BETA1, BETA2)
STAGE2 = stages.stage2(ALPHA, BETA1)
PLAIN = stages.multiturn_rl(BETA1)


def _stage2_sweep(name: str, title: str, sweep: str, value, stage=STAGE2, **more):
  more = dict(init='stage1', num_steps=STAGE2_STEPS) | more
  num_steps = more.pop('num_steps')
  return row(name, title, 'sweep', stage, num_steps, sweep=sweep, value=value, seeds=1, **more)


def _stage1_sweep(name: str, title: str, sweep: str, value, stage=STAGE1, changes=None):
  changes = {'optimizer.schedule': 'constant'} | (changes or {})
  return _stage2_sweep(
    name, title, sweep, value, stage, num_steps=STAGE1_STEPS, init='', changes=changes
  )


def sweeps():
  """One seed each; the shared setting's point of a sweep is the row `score` or `stage1`."""
  return (*_number_sweeps(), *_other_sweeps())


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
  constant = {'optimizer.schedule': 'constant'}
  return (
    row('interleaved_1', 'first half of Stage I', 'part', STAGE1, half1, changes=constant, seeds=1),
    row(
      'interleaved_2',
      'first half of Stage II',
      'part',
      STAGE2,
      half2,
      changes=constant,
      seeds=1,
      init='interleaved_1',
    ),
    row(
      'interleaved_3',
      'second half of Stage I',
      'part',
      STAGE1,
      half1,
      changes=constant,
      seeds=1,
      init='interleaved_2',
    ),
    _stage2_sweep(
      'interleaved',
      'Stages I and II twice',
      sweep,
      'Stages I and II twice',
      init='interleaved_3',
      num_steps=half2,
    ),
  )


def regimes():
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
  mixtures = {
    'rare': ('work at turn 2 in 0.15% of the pretraining', dict(worked_t2=0.0015, steps=500)),
    'shaky': ('400 updates of pretraining', dict(first_steps=400)),
  }
  bases = []
  for name, (title, habits) in mixtures.items():
    bases.append(row(f'mixture_{name}', title, 'part', PLAIN, 0, pretrain=habits, seeds=1))
    settings[name] = (title, {'model.checkpoint': f'WORKDIR/mixture_{name}/seed0'})
  rows = [
    row(
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
  first = row('regime_slow_stage1', 'Stage I, slow', 'part', STAGE1, STAGE1_STEPS, **more)
  second = REGIME_STEPS - STAGE1_STEPS
  title = f'SCoRe, {title}'
  return (
    first,
    row(
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
