"""Stage I on generated sums (`What is 7 + 12?`) with a real chat model, SmolLM2-135M-Instruct.

The model gets these right now and then, so that some groups have mixed rewards within the first
steps, even on a laptop:

    python -m score_jax.main --config=configs/stage1_sums.py \
      --config.model.checkpoint=SmolLM2-135M-Instruct.Q4_1.gguf --workdir=runs/stage1_sums

Expected numbers: not yet run long enough to give any.
"""

import dataclasses

from ml_collections import ConfigDict

from score_jax.core.config import default_config
from score_jax.objective import stages


def get_config() -> ConfigDict:
  """Makes the config."""
  c = default_config()
  c.task.name = 'sums'
  c.task.low = 2
  c.task.high = 20
  c.task.num_train = 250
  c.task.num_test = 100
  c.model.preset = 'smollm2_135m'
  c.model.remat = 'block'
  c.stage.update(dataclasses.asdict(stages.stage1(beta1=0.01, beta2=0.1)))
  c.rollout.problems_per_step = 4
  c.rollout.samples_per_problem = 4
  c.rollout.prompt_tokens = 64
  c.rollout.turn_tokens = (24, 24)
  c.optimizer.learning_rate = 5e-6
  c.train.num_steps = 100
  c.train.checkpoint_every_steps = 10
  c.train.episodes_every_steps = 1
  c.eval.batch = 50
  return c
