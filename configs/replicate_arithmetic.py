"""The paper's comparisons on generated sums, with the small policy that ships with the package.

    python -m score_jax.replicate --config=configs/replicate_arithmetic.py --seeds=3 \
      --workdir=runs/replicate

Rows in order: what the paper compares SCoRe with (its Table 2), what it removes (Table 4), three
turns (App. A.1), sweeps of one seed, and settings in which SCoRe is not needed. `score` is Stage I
(`stage1`) and Stage II; every row of RL takes as many updates as both together.

The shared setting is that of `configs/quickstart.py`, with its deviations from the paper: its
penalties and the r1-conditioned baseline. The sweeps have the paper's.

Self-Refine is measured on SmolLM2-135M-Instruct, where its GGUF file is named with
--config.smollm2_run.model.checkpoint=SmolLM2-135M-Instruct.Q4_1.gguf.

Expected numbers: those of its base, stage1, score and multiturn_rl rows are the quickstart's, in
README.md; docs/results/report.md is of the earlier task, today's rows `regime_worked*`.
"""

import dataclasses

from ml_collections import ConfigDict

from score_jax.core.config import read_config
from score_jax.objective import stages
from score_jax.replication.rows import ReplicationRow

_QUICKSTART = read_config('quickstart.py', beside=__file__)
_ROWS = {row.name: row for row in _QUICKSTART.rows}
_STAGE1_ROW, _STAGE2_ROW, _PLAIN_ROW = (_ROWS[n] for n in ('stage1', 'stage2', 'multiturn_rl'))
STAGE1, STAGE2, PLAIN = _STAGE1_ROW.stage, _STAGE2_ROW.stage, _PLAIN_ROW.stage
ALPHA, BETA1, BETA2 = STAGE2.bonus[1], STAGE2.kl_weight[1], STAGE1.kl_weight[0]
TURN_TOKENS = _QUICKSTART.run.rollout.turn_tokens
ALL = ('greedy', 'sampled', 'fixed')
TRAIN = (*ALL, 'train')
# More: ten turns, and votes for inference scaling.
MORE = (*TRAIN, 'turns', 'votes')

NOTES = (
  'What may leave plain multi-turn RL behind: on the problems that it is trained on, an answer '
  'that is right at once and repeated earns as much as a wrong one that is set right, and few '
  'problems can be learned by heart. Only correcting carries over to others. So the column to look '
  'at is e+, the share of wrong first answers that are left wrong, on held-out problems; greedy '
  'answers to training problems are in a table of their own.',
  'The table of regimes below has plain multi-turn RL and SCoRe side by side where SCoRe should be '
  'needed less: with many training problems, without a KL penalty, from a base policy that checks '
  'its answers at turn 1 too, and on sums that both turns work out term by term.',
)


def get_config() -> ConfigDict:
  """Makes the config: what all rows share under `run`, and the rows."""
  c = ConfigDict()
  c.run = _QUICKSTART.run
  c.run.train.progress = False  # rows run side by side, each in a process of its own
  c.num_turns = 10  # of the evaluation 'turns'
  c.num_vote_problems = 512  # of the evaluation 'votes'
  c.smollm2_run = read_config(
    'stage1_sums.py', beside=__file__
  )  # for the rows that need a chat model
  c.pretrain = read_config('pretrain_arithmetic.py', beside=__file__)
  # What the report says besides; where SCoRe's own row stands in the sweeps.
  c.report = ConfigDict({'notes': NOTES, 'sweep_reference': {'alpha': ALPHA, 'beta1': BETA1}})
  c.rows = (
    *_methods(),
    *_ablations(),
    *_more_turns(),
    *_other_models(),
    *read_config('replicate_sweeps.py', beside=__file__).rows,
  )
  return c


def _supervised(name: str, title: str, method: str, keep_correct: bool, iterations: int, **more):
  changes = {
    'supervised.method': method,
    'supervised.keep_correct': keep_correct,
    'supervised.iterations': iterations,
  }
  more = dict(group='method', evaluations=ALL, paper=name) | more
  # The number of updates follows from how many traces are found; this is for the time left only.
  more |= dict(schedule='constant', changes=changes)
  return ReplicationRow(name, title, stage=PLAIN, num_steps=100, **more)


def _methods():
  """Table 2, and the controls."""
  one_turn = {'rollout.turn_tokens': TURN_TOKENS[:1], 'eval.turn_tokens': TURN_TOKENS}
  why = (
    'a policy of 133,568 parameters that knows digits only cannot be asked for feedback; measured '
    'on SmolLM2-135M-Instruct, see there'
  )
  return (
    ReplicationRow('base', 'Base model', 'method', PLAIN, 0, evaluations=MORE, paper='base'),
    ReplicationRow(
      'self_refine', 'Self-Refine', 'method', PLAIN, 0, paper='self_refine', not_applicable=why
    ),
    _supervised('star_d', 'STaR, D', 'star', False, 3),
    _supervised('star_dplus', 'STaR, D+', 'star', True, 3),
    _supervised('pair_sft_d', 'Pair-SFT, D', 'pair_sft', False, 1),
    _supervised('pair_sft_dplus', 'Pair-SFT, D+', 'pair_sft', True, 1),
    _PLAIN_ROW.like(
      'single_turn_rl',
      'Single-turn RL',
      stage=stages.single_turn_rl(BETA1),
      evaluations=ALL,
      changes=one_turn,
      paper='single_turn_rl',
    ),
    dataclasses.replace(_PLAIN_ROW, evaluations=MORE),
    _PLAIN_ROW.like(
      'last_turn_rl',
      'Multi-turn RL, last turn',
      stage=stages.last_turn_rl(BETA1),
      evaluations=ALL,
    ),
    _PLAIN_ROW.like(
      'random_reward', 'Random reward', evaluations=ALL, changes={'train.random_reward': 0.5}
    ),
    dataclasses.replace(_STAGE1_ROW, evaluations=TRAIN),
    dataclasses.replace(_STAGE2_ROW, name='score', evaluations=MORE),
  )


def _ablations():
  """Table 4; single-turn training is the row of that name above."""
  more = dict(group='ablation', evaluations=ALL)
  no_bonus = stages.Stage('', (1.0, 1.0), (BETA1, BETA1), (0.0, 0.0))
  return (
    _PLAIN_ROW.like('no_stage1', 'without Stage I', stage=STAGE2, paper='no_stage1', **more),
    _STAGE2_ROW.like(
      'no_bonus', 'without bonus', stage=no_bonus, paper='no_bonus', **more | {'evaluations': TRAIN}
    ),
    _supervised(
      'star_stage2',
      'STaR as Stage II',
      'star',
      True,
      3,
      group='ablation',
      init='stage1',
      paper='star_stage2',
    ),
    _STAGE2_ROW.like(
      'off_policy_turn1',
      "turn 1 the base model's",
      changes={'rollout.base_turn1_share': 1.0},
      paper='off_policy_turn1',
      **more,
    ),
  )


def _more_turns():
  """Three turns, the third with the second one's budget: Stage Ia is `stage1` above."""
  budgets = (*TURN_TOKENS, TURN_TOKENS[-1])
  three, more = {'rollout.turn_tokens': budgets}, dict(group='turns', seeds=1)
  stage2 = stages.stage2_of_three_turns(ALPHA, BETA1)
  return (
    ReplicationRow(
      'three_base',
      'Base model, three turns',
      stage=stage2,
      changes=three,
      paper='turns_base',
      **more,
    ),
    _STAGE1_ROW.like(
      'three_stage1a',
      'Stage Ia',
      changes={'eval.turn_tokens': budgets},
      paper='turns_stage1a',
      **more,
    ),
    _STAGE1_ROW.like(
      'three_stage1b',
      'Stage Ib',
      stage=stages.stage1b(BETA1, BETA2),
      init='three_stage1a',
      changes=three,
      paper='turns_stage1b',
      **more,
    ),
    _STAGE2_ROW.like(
      'three_stage2',
      'Stage II of three turns',
      stage=stage2,
      init='three_stage1b',
      evaluations=('greedy', 'sampled', 'turns'),
      changes=three,
      paper='turns_stage2',
      **more,
    ),
  )


def _other_models():
  """Self-Refine needs a model that can be talked to."""
  refine = {'eval.protocol': 'self_refine', 'eval.feedback_tokens': 64}
  more = dict(evaluations=('greedy',), run='smollm2_run', seeds=1)
  return (
    ReplicationRow('smollm2', 'SmolLM2-135M-Instruct, base', 'model', PLAIN, 0, **more),
    ReplicationRow(
      'smollm2_refine',
      'SmolLM2-135M-Instruct, Self-Refine',
      'model',
      PLAIN,
      0,
      changes=refine,
      **more,
    ),
  )
