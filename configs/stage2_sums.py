"""Stage II on generated sums with a real chat model; starts from the run of `stage1_sums.py`.

    python -m score_jax.main --config=configs/stage2_sums.py \
      --config.model.checkpoint=SmolLM2-135M-Instruct.Q4_1.gguf \
      --config.init.path=runs/stage1_sums --workdir=runs/stage2_sums

Expected numbers: not yet run long enough to give any.
"""

import dataclasses

from ml_collections import ConfigDict

from score_jax.core.config import read_config
from score_jax.objective import stages


def get_config() -> ConfigDict:
  """Makes the config: Stage I's, with another stage."""
  c = read_config('stage1_sums.py', beside=__file__)
  c.stage.update(dataclasses.asdict(stages.stage2(alpha=10.0, beta1=0.01)))
  c.init.required = True
  return c
