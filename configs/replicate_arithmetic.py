"""The paper's comparisons on generated sums, with the small policy that ships with the package.

    python -m score_jax.replicate --config=configs/replicate_arithmetic.py --seeds=3 \
      --workdir=runs/replicate

Rows in order: what the paper compares SCoRe with (its Table 2), what it removes (Table 4), three
turns (App. A.1), sweeps of one seed, and a search for a regime in which plain multi-turn RL
collapses. `score` is Stage I (`stage1`) and Stage II; every row of RL takes as many updates as both
together.

The shared setting is that of `configs/quickstart.py`, with its deviations from the paper: beta2 = 1
and the r1-conditioned baseline. The sweeps have the paper's.

Self-Refine is measured on SmolLM2-135M-Instruct, where its GGUF file is named with
--config.smollm2_run.model.checkpoint=SmolLM2-135M-Instruct.Q4_1.gguf.

Expected numbers: docs/results/report.md.
"""

from ml_collections import ConfigDict

from score_jax.core.config import read_config
from score_jax.objective import stages
from score_jax.replication.rows import ReplicationRow

_QUICKSTART = read_config('quickstart.py', beside=__file__)
_, _STAGE1_ROW, _STAGE2_ROW, _PLAIN_ROW = _QUICKSTART.rows
STAGE1, STAGE2, PLAIN = _STAGE1_ROW.stage, _STAGE2_ROW.stage, _PLAIN_ROW.stage
STAGE1_STEPS, STAGE2_STEPS = _STAGE1_ROW.num_steps, _STAGE2_ROW.num_steps
BOTH_STEPS = STAGE1_STEPS + STAGE2_STEPS
ALPHA, BETA1, BETA2 = STAGE2.bonus[1], STAGE2.kl_weight[1], STAGE1.kl_weight[0]
ALL = ('greedy', 'sampled', 'fixed')
# More: ten turns, and votes for inference scaling.
MORE = (*ALL, 'turns', 'votes')

NOTES = (
  'Why so little is separated: working a sum out, digit by digit, is one habit, and both turns '
  'share it. Every method that is trained by RL soon works out whatever fits its budget: sums '
  "of up to five terms in turn 1's 10 tokens, all sums in turn 2's 12. That is 72.9% and 100%, "
  'with SCoRe and without it, and leaves nothing for the bonus or for Stage I to add. Only the '
  'supervised baselines and training on one turn fall short of it.',
  'What was tried to bring the collapse about: easier and harder sums, other budgets, three '
  'other learning rates, smaller batches, and base models whose pretraining hardly ever works '
  'at turn 2, or is short; the table of regimes below has each. Plain multi-turn RL collapses, '
  "as in the paper's Fig. 6, wherever turn 1's budget holds the work of every problem: with "
  'sums of three and four terms, and with 12 tokens at both turns. The first answer then takes '
  "all that is to be had and the second repeats it, the paper's direct solution. With a "
  "learning rate of 2e-5 the share of changed answers falls too, and SCoRe's ends lower still: "
  'its updates are too few to learn to work. SCoRe was not run in the other regimes.',
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
    'supervised.num_problems': 2000,
  }
  more = dict(group='method', evaluations=ALL, paper=name) | more
  # The number of updates follows from how many traces are found; this is for the time left only.
  more |= dict(schedule='constant', changes=changes)
  return ReplicationRow(name, title, stage=PLAIN, num_steps=100, **more)


def _methods():
  """Table 2, and the controls."""
  one_turn = {'rollout.turn_tokens': (10,), 'eval.turn_tokens': (10, 12)}
  why = (
    'a policy of 132,992 parameters that knows digits only cannot be asked for feedback; measured '
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
    ReplicationRow(
      'single_turn_rl',
      'Single-turn RL',
      'method',
      stages.single_turn_rl(BETA1),
      BOTH_STEPS,
      evaluations=ALL,
      changes=one_turn,
      paper='single_turn_rl',
    ),
    ReplicationRow(
      'multiturn_rl', 'Multi-turn RL, both turns', 'method', PLAIN, BOTH_STEPS, evaluations=MORE
    ),
    ReplicationRow(
      'last_turn_rl',
      'Multi-turn RL, last turn',
      'method',
      stages.last_turn_rl(BETA1),
      BOTH_STEPS,
      evaluations=ALL,
    ),
    ReplicationRow(
      'random_reward',
      'Random reward',
      'method',
      PLAIN,
      BOTH_STEPS,
      evaluations=ALL,
      changes={'train.random_reward': 0.5},
    ),
    ReplicationRow(
      'stage1',
      'SCoRe, Stage I only',
      'method',
      STAGE1,
      STAGE1_STEPS,
      evaluations=ALL,
      schedule='constant',
    ),
    ReplicationRow(
      'score',
      'SCoRe',
      'method',
      STAGE2,
      STAGE2_STEPS,
      init='stage1',
      evaluations=MORE,
      paper='score',
    ),
  )


def _ablations():
  """Table 4; single-turn training is the row of that name above."""
  no_bonus = stages.Stage('', (1.0, 1.0), (BETA1, BETA1), (0.0, 0.0))
  return (
    ReplicationRow(
      'no_stage1',
      'without Stage I',
      'ablation',
      STAGE2,
      BOTH_STEPS,
      evaluations=ALL,
      paper='no_stage1',
    ),
    ReplicationRow(
      'no_bonus',
      'without bonus',
      'ablation',
      no_bonus,
      STAGE2_STEPS,
      init='stage1',
      evaluations=ALL,
      paper='no_bonus',
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
    ReplicationRow(
      'off_policy_turn1',
      "turn 1 the base model's",
      'ablation',
      STAGE2,
      STAGE2_STEPS,
      init='stage1',
      evaluations=ALL,
      changes={'rollout.base_turn1_share': 1.0},
      paper='off_policy_turn1',
    ),
  )


def _more_turns():
  """Three turns: Stage Ia is `stage1` above."""
  three = {'rollout.turn_tokens': (10, 12, 12)}
  return (
    ReplicationRow(
      'three_base',
      'Base model, three turns',
      'turns',
      stages.stage2_of_three_turns(ALPHA, BETA1),
      0,
      changes=three,
      paper='turns_base',
      seeds=1,
    ),
    ReplicationRow(
      'three_stage1a',
      'Stage Ia',
      'turns',
      STAGE1,
      STAGE1_STEPS,
      schedule='constant',
      changes={'eval.turn_tokens': (10, 12, 12)},
      paper='turns_stage1a',
      seeds=1,
    ),
    ReplicationRow(
      'three_stage1b',
      'Stage Ib',
      'turns',
      stages.stage1b(BETA1, BETA2),
      STAGE1_STEPS,
      init='three_stage1a',
      schedule='constant',
      changes=three,
      paper='turns_stage1b',
      seeds=1,
    ),
    ReplicationRow(
      'three_stage2',
      'Stage II of three turns',
      'turns',
      stages.stage2_of_three_turns(ALPHA, BETA1),
      STAGE2_STEPS,
      init='three_stage1b',
      evaluations=('greedy', 'sampled', 'turns'),
      changes=three,
      paper='turns_stage2',
      seeds=1,
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
