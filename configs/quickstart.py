"""The paper's picture in small: plain multi-turn RL stops correcting, and SCoRe does not.

    python -m score_jax.quickstart --workdir=runs/quickstart

Four rows: the base policy; Stage I from it; Stage II from Stage I's result; and plain multi-turn RL
from the base policy, rewarded on both turns, for as many updates as both stages together.

The last digit of a sum, of four terms, which the base policy knows, or of five, which it
guesses. Turn 2 may check what turn 1 said, and has the same budget. The training problems are few,
so that all their first answers can be learned by heart, and then nothing is left to correct: on
these, and on these only. `docs/collapse.md` tells the story, and how the settings were chosen.

Hardware, time and what to expect for three seeds: the table in README.md.
"""

import dataclasses

from ml_collections import ConfigDict

from score_jax.core.config import default_config
from score_jax.objective import stages
from score_jax.replication.rows import ReplicationRow

STAGE1_STEPS, STAGE2_STEPS = 70, 220
# The paper has 10, 0.01 and 0.1. Answers of ten tokens have a KL of a few nats, the paper's one of
# many more: beta1 makes as much of it. So small a policy shares more between its turns, and is held
# harder at turn 1. With a larger alpha turn 2 alone is learned.
ALPHA, BETA1, BETA2 = 2.0, 0.1, 20.0


def get_config() -> ConfigDict:
  """Makes the config: what all rows share under `run`, and the rows."""
  run = default_config()
  run.model.checkpoint = 'embedded'
  run.model.scan_unroll = 2
  run.task.name = 'arithmetic'
  run.task.num_train = 256
  run.task.num_test = 2048
  run.task.level_weights = ConfigDict({'4': 3.0, '5': 5.0})
  run.rollout.problems_per_step = 64
  run.rollout.samples_per_problem = 8
  run.rollout.prompt_tokens = 6
  run.rollout.turn_tokens = (13, 13)  # of a check of five terms, its end included
  # The bonus's `-alpha r1` adds to plain RLOO's variance at turn 2.
  run.objective.baseline = 'rloo_given_r1'
  run.optimizer.learning_rate = 3e-4
  run.train.length_bucket = 36
  run.train.checkpoint_every_steps = 25
  run.eval.batch = 2048

  c = ConfigDict()
  c.run = run
  c.report = ConfigDict()
  plain = stages.multiturn_rl(BETA1)
  rows = (
    ReplicationRow('base', 'Base model', 'method', plain, paper='base'),
    ReplicationRow(
      'stage1',
      'SCoRe, Stage I only',
      'method',
      stages.stage1(BETA1, BETA2),
      STAGE1_STEPS,
    ),
    ReplicationRow(
      'stage2',
      'SCoRe',
      'method',
      stages.stage2(ALPHA, BETA1),
      STAGE2_STEPS,
      init='stage1',
      paper='score',
    ),
    ReplicationRow(
      'multiturn_rl', 'Multi-turn RL, both turns', 'method', plain, STAGE1_STEPS + STAGE2_STEPS
    ),
  )
  shared = dict(schedule='constant', evaluations=('greedy', 'sampled', 'train'))
  c.rows = tuple(dataclasses.replace(row, **shared) for row in rows)
  return c
