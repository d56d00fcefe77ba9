"""SCoRe on GSM8K, Stage I or II: word problems that a small model sometimes gets right.

The paper does not train on GSM8K. Everything that it does not say for GSM8K is taken from MATH:
prompt and instruction, and Table 5's setting, as in `stage1_math.py` and `stage2_math.py`. The
stage is the config's argument, with a preset behind a comma: `gsm8k.py:stage1`,
`gsm8k.py:stage2,smollm2_135m`.

    python -m score_jax.main --config=configs/gsm8k.py:stage1 \
      --config.model.checkpoint=WEIGHTS --config.data.path=DATA --workdir=runs/stage1_gsm8k
    python -m score_jax.main --config=configs/gsm8k.py:stage2 \
      --config.model.checkpoint=WEIGHTS --config.data.path=DATA \
      --config.init.path=runs/stage1_gsm8k --workdir=runs/stage2_gsm8k
    python -m score_jax.evaluate --run=runs/stage2_gsm8k

On a laptop, with SmolLM2-135M-Instruct from its GGUF file:

    python -m score_jax.main --config=configs/gsm8k.py:stage1,smollm2_135m \
      --config.model.checkpoint=SmolLM2-135M-Instruct.Q4_1.gguf --config.data.path=DATA \
      --config.train.num_steps=2 --workdir=runs/stage1_gsm8k_smollm2

Expected numbers: not yet run at this setting.
"""

from ml_collections import ConfigDict

from score_jax.core.config import read_config


def get_config(argument: str = 'stage1') -> ConfigDict:
  """Makes the config: that of MATH, with another task.

  Args:
    argument: 'stage1' or 'stage2', and behind a comma a preset of `stage1_math.py`.

  Returns:
    The config.

  Raises:
    ValueError: for another stage or preset.
  """
  stage, _, preset = argument.partition(',')
  if stage not in ('stage1', 'stage2'):
    raise ValueError(f"configs/gsm8k.py:{argument}: the stage is neither 'stage1' nor 'stage2'")
  c = read_config(f'{stage}_math.py:{preset}', beside=__file__)
  c.task.name = 'gsm8k'
  return c
