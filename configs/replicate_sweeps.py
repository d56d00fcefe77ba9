"""The swept rows of `replicate_arithmetic.py`, which need its other rows: no config by itself."""

import dataclasses

from ml_collections import ConfigDict

from score_jax.core.config import read_config
from score_jax.objective import stages
from score_jax.replication.rows import ReplicationRow

# The shared setting is the quickstart's.
_QUICKSTART = read_config('quickstart.py', beside=__file__)
_PRETRAIN = read_config('pretrain_arithmetic.py', beside=__file__)
_WORKED = read_config('pretrain_worked.py', beside=__file__)
_ROWS = {row.name: row for row in _QUICKSTART.rows}
_STAGE1_ROW, _STAGE2_ROW, _PLAIN_ROW = (_ROWS[n] for n in ('stage1', 'stage2', 'multiturn_rl'))
STAGE1, STAGE2, PLAIN = _STAGE1_ROW.stage, _STAGE2_ROW.stage, _PLAIN_ROW.stage
ALPHA, BETA1, BETA2 = STAGE2.bonus[1], STAGE2.kl_weight[1], STAGE1.kl_weight[0]


def get_config() -> ConfigDict:
  """Makes the rows, of one seed each."""
  return ConfigDict({'rows': (*_number_sweeps(), *_other_sweeps(), *_regimes())})


def _sweep(of: ReplicationRow, name: str, title: str, sweep: str, value, **more):
  return of.like(name, title, group='sweep', sweep=sweep, value=value, seeds=1, **more)


def _number_sweeps():
  """What the paper gives numbers for, and how the KL is estimated.

  Beside the quickstart's own value, which `score` and `stage1` have.
  """
  alphas = tuple(
    _sweep(_STAGE2_ROW, f'alpha_{a:g}', f'alpha = {a:g}', 'alpha', a, stage=stages.stage2(a, BETA1))
    for a in (1.0, 3.0, 10.0, 30.0)
    if a != ALPHA
  )
  betas = tuple(
    _sweep(_STAGE2_ROW, f'beta1_{b:g}', f'beta1 = {b:g}', 'beta1', b, stage=stages.stage2(ALPHA, b))
    for b in (0.0, 0.01, 0.03, 0.3)
    if b != BETA1
  )
  beta2s = tuple(
    _sweep(_STAGE1_ROW, f'beta2_{b:g}', f'beta2 = {b:g}', 'beta2', b, stage=stages.stage1(BETA1, b))
    for b in (0.1, 1.0, 100.0)
    if b != BETA2
  )
  estimators = tuple(
    _sweep(
      _STAGE1_ROW,
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
  plain_rloo = {'objective.baseline': 'rloo'}
  bonuses = tuple(
    _sweep(
      _STAGE2_ROW,
      name,
      title,
      'bonus or weight, and baseline (Stage II)',
      value,
      stage=stage,
      changes=changes,
    )
    for name, title, value, stage, changes in (
      ('bonus_rloo', 'bonus, RLOO', 'bonus, RLOO', STAGE2, plain_rloo),
      ('weight_given', 'weight 1 + alpha', 'weight 1 + alpha, given r1', weight, {}),
      ('weight_rloo', 'weight 1 + alpha, RLOO', 'weight 1 + alpha, RLOO', weight, plain_rloo),
    )
  )
  discounted = dataclasses.replace(stages.stage2(1.0, BETA1), discount=0.8)
  adaptive = dataclasses.replace(stages.stage1(BETA1, 0.1), kl_target_nats=(0.02, 0.0))
  others = (
    _way(_PLAIN_ROW, 'discount', 'gamma = 0.8, alpha = 1', stage=discounted),
    _way(_STAGE1_ROW, 'adaptive_beta2', 'adaptive beta2 (Stage I)', stage=adaptive),
    _way(
      _STAGE2_ROW,
      'base_turn1_half',
      "half of turn 1 the base model's",
      changes={'rollout.base_turn1_share': 0.5},
    ),
  )
  return (*bonuses, *others, *_interleaved())


def _way(of: ReplicationRow, name: str, title: str, **more):
  return _sweep(of, name, title, 'other ways', title, **more)


def _interleaved():
  """The first version of the paper: Stages I and II in turns."""
  half1, half2 = _STAGE1_ROW.num_steps // 2, _STAGE2_ROW.num_steps // 2
  part = dict(group='part', schedule='constant', seeds=1)
  first, second, third = 'first half of Stage I', 'first half of Stage II', 'second half of Stage I'
  return (
    _STAGE1_ROW.like('interleaved_1', first, num_steps=half1, **part),
    _STAGE2_ROW.like('interleaved_2', second, num_steps=half2, init='interleaved_1', **part),
    _STAGE1_ROW.like('interleaved_3', third, num_steps=half1, init='interleaved_2', **part),
    _way(
      _STAGE2_ROW, 'interleaved', 'Stages I and II twice', num_steps=half2, init='interleaved_3'
    ),
  )


def _regimes():
  """Settings in which SCoRe is not needed, each with plain multi-turn RL beside it."""
  return (
    *_regime('many', '5,000 training problems', {'task.num_train': 5000}),
    *_regime('no_kl', 'beta1 = 0', beta1=0.0),
    *_checks_at_turn_1(),
    *_worked(),
  )


def _checks_at_turn_1():
  """From a base policy that checks its answers at turn 1 as often as at turn 2."""
  room = 2  # tokens that a guess takes before its check
  recall, check, habit = (phase.to_dict() for phase in _PRETRAIN.phases)
  phases = (
    recall,
    *(phase | {'checked_t1': phase['checked_t2']} for phase in (check, habit)),
  )
  base = _base(
    'checks_t1_base',
    'checks at turn 1 too',
    {
      'phases': tuple(map(ConfigDict, phases)),
      'first_turn_tokens': _PRETRAIN.first_turn_tokens + room,
      'length': _PRETRAIN.length + 2 * room,
    },
  )
  run = _QUICKSTART.run
  changes = {
    'rollout.turn_tokens': tuple(n + room for n in run.rollout.turn_tokens),
    'train.length_bucket': run.train.length_bucket + 2 * room,
  }
  return base, *_regime('checks_t1', 'a base policy that checks at turn 1', changes, base=base.name)


def _worked():
  """Sums that both turns work out, with turn 2's budget longer by a step than turn 1's."""
  base = _base(
    'worked_base',
    'works sums out',
    {key: value for key, value in _WORKED.items() if value != _PRETRAIN[key]},
  )
  changes = {
    'task.num_train': 5000,
    # Its pretraining's, without sums of three terms: only 85 of these are held out.
    'task.level_weights': {n: w for n, w in _WORKED.level_weights.items() if n != '3'},
    'rollout.prompt_tokens': 7,
    'rollout.turn_tokens': (10, 12),
    'train.length_bucket': 30,
    'optimizer.learning_rate': 4e-4,
  }
  more = dict(
    base=base.name, alpha=10.0, beta1=0.01, beta2=1.0, num_steps=(50, 70), schedule='cosine'
  )
  return base, *_regime('worked', 'sums worked out at both turns', changes, **more)


def _base(name: str, title: str, changes):
  """A row that makes another base policy; `changes` are of its pretraining."""
  return ReplicationRow(name, title, 'part', PLAIN, changes=changes, seeds=1, run='pretrain')


def _regime(
  name: str,
  title: str,
  changes=None,
  *,
  base: str = '',
  alpha: float = ALPHA,
  beta1: float = BETA1,
  beta2: float = BETA2,
  num_steps: tuple[int, int] = (_STAGE1_ROW.num_steps, _STAGE2_ROW.num_steps),
  schedule: str = _PLAIN_ROW.schedule,
):
  """Plain multi-turn RL and SCoRe in another setting; Stage I is a part of SCoRe."""
  name, changes = f'regime_{name}', dict(changes or {})
  if base:
    changes['model.checkpoint'] = f'WORKDIR/{base}/seed0'
  more = dict(changes=changes, seeds=1, after=base)
  shown = more | dict(group='regime', sweep='regime', schedule=schedule)
  plain, score = f'Multi-turn RL, {title}', f'SCoRe, {title}'
  return (
    _PLAIN_ROW.like(
      name, plain, stage=stages.multiturn_rl(beta1), num_steps=sum(num_steps), value=plain, **shown
    ),
    _STAGE1_ROW.like(
      f'{name}_stage1',
      f'Stage I, {title}',
      stage=stages.stage1(beta1, beta2),
      num_steps=num_steps[0],
      group='part',
      **more,
    ),
    _STAGE2_ROW.like(
      f'{name}_score',
      score,
      stage=stages.stage2(alpha, beta1),
      num_steps=num_steps[1],
      init=f'{name}_stage1',
      value=score,
      **shown,
    ),
  )
