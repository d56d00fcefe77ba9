"""Evaluation on HumanEval, zero-shot, of a model or of a run that was trained on MBPP.

    python -m score_jax.evaluate --config=configs/humaneval.py --run=runs/stage2_code \
      --config.model.checkpoint=WEIGHTS --config.data.path=DATA

It writes `runs/stage2_code/eval_humaneval_*`; without `--run` the base model is evaluated. There is
nothing to train on: HumanEval has 164 problems and no training split.

Expected numbers: not yet run. One problem is 0.6 points.
"""

from ml_collections import ConfigDict

from score_jax.core.config import read_config


def get_config(preset: str = 'gemma2_2b') -> ConfigDict:
  """Makes the config: Stage I's on MBPP, with another task.

  Args:
    preset: as for `stage1_code.py`.

  Returns:
    The config, for `score_jax.evaluate`.
  """
  c = read_config(f'stage1_code.py:{preset}', beside=__file__)
  c.task.name = 'humaneval'
  return c
