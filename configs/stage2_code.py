"""Stage II of SCoRe on MBPP (arXiv:2409.12917, Eq. 4): reward both turns, and progress at turn 2.

Starts from Stage I's run, is held near the *base* model. The default is the paper's setting (Table
5: alpha 10, beta1 0.01); see `stage1_code.py` for what the paper leaves open.

    python -m score_jax.main --config=configs/stage2_code.py \
      --config.model.checkpoint=WEIGHTS --config.data.path=DATA \
      --config.init.path=runs/stage1_code --workdir=runs/stage2_code

and on a laptop:

    python -m score_jax.main --config=configs/stage2_code.py:smollm2_135m \
      --config.model.checkpoint=SmolLM2-135M-Instruct.Q4_1.gguf --config.data.path=DATA \
      --config.init.path=runs/stage1_code_smollm2 --config.train.num_steps=2 \
      --workdir=runs/stage2_code_smollm2

Evaluation on MBPP's test split; `humaneval.py` has that on HumanEval:

    python -m score_jax.evaluate --run=runs/stage2_code

Expected numbers: not yet run at the paper's setting. The paper's, with Gemini 1.0 Pro on HumanEval:
turn 1 52.4, turn 2 64.6 (base model 53.7, 56.7), MBPP-R 60.6 (base model 47.3).
"""

import dataclasses

from ml_collections import ConfigDict

from score_jax.core.config import read_config
from score_jax.objective import stages


def get_config(preset: str = 'gemma2_2b') -> ConfigDict:
  """Makes the config: Stage I's, with another stage.

  Args:
    preset: as for `stage1_code.py`.

  Returns:
    The config of Stage II.
  """
  c = read_config(f'stage1_code.py:{preset}', beside=__file__)
  c.stage.update(dataclasses.asdict(stages.stage2(alpha=10.0, beta1=0.01)))
  c.init.required = True
  return c
