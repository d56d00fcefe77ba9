"""Stage I of SCoRe on MATH (arXiv:2409.12917, Eq. 3): reward turn 2, hold turn 1 near the base.

The default is the paper's setting (Table 5: Adam 5e-6, batch 512, temperature 1, beta1 0.01, beta2
0.1) for Gemma 2 2B on a TPU pod slice; CHECKPOINT is its Hugging Face folder. Not stated in the
paper and chosen here: 8 samples a problem, 1,500 of the 3,000 steps for each stage, 1,024 tokens a
turn.

    python -m score_jax.main --config=configs/stage1_math.py \
      --config.model.checkpoint=CHECKPOINT --config.data.path=DATA --workdir=runs/stage1_math

The same setting for other models: `--config=configs/stage1_math.py:PRESET`, a key of `LARGE`, with
the smallest slice of TPU v5p that each fits, as `python -m score_jax.plan` says (what smaller ones
lack is in docs/planning.md).

| preset | slice | mesh | peak, GiB: rollout | update | step, s |
|---|---|---|---|---|---|
| gemma2_27b | v5p:2x2x4 | 1, 4, 4 | 89.5 | 50.5 | 91 to 131 |
| gemma2_2b | v5p:2x2x1 | 1, 4, 1 | 76.9 | 23.1 | 51 to 56 |
| gemma2_9b | v5p:2x2x4 | 1, 16, 1 | 77.4 | 21.0 | 53 to 60 |
| llama3_1_8b | v5p:2x2x2 | 1, 8, 1 | 66.7 | 30.9 | 59 to 72 |
| qwen2_5_7b | v5p:2x2x1 | 1, 4, 1 | 72.7 | 53.0 | 84 to 100 |

On a laptop, with SmolLM2-135M-Instruct from its GGUF file (short answers, tiny batches: it shows
that everything runs, not that it learns):

    python -m score_jax.main --config=configs/stage1_math.py:smollm2_135m \
      --config.model.checkpoint=SmolLM2-135M-Instruct.Q4_1.gguf --config.data.path=DATA \
      --config.train.num_steps=3 --workdir=runs/stage1_smollm2

Expected numbers: not yet run at the paper's setting.
"""

import dataclasses

from ml_collections import ConfigDict

from score_jax.core.config import default_config
from score_jax.objective import stages

# Mesh (data, fsdp, tensor), config.train.micro_batches, and type of the reference: that of the
# checkpoint, where float32 would hold the same numbers in twice the memory.
LARGE = {
  'gemma2_2b': ((1, -1, 1), 4, 'float32'),
  'gemma2_9b': ((1, -1, 1), 16, 'bfloat16'),
  'gemma2_27b': ((1, -1, 4), 16, 'bfloat16'),
  'llama3_1_8b': ((1, -1, 1), 16, 'bfloat16'),
  'qwen2_5_7b': ((1, -1, 1), 16, 'bfloat16'),
}


def get_config(preset: str = 'gemma2_2b') -> ConfigDict:
  """Makes the config.

  Args:
    preset: a key of `LARGE`, the paper's setting, or 'smollm2_135m', for a laptop.

  Returns:
    The config of Stage I.

  Raises:
    ValueError: for another preset.
  """
  c = default_config()
  c.task.name = 'math'
  c.model.preset = preset
  c.stage.update(dataclasses.asdict(stages.stage1(beta1=0.01, beta2=0.1)))
  c.optimizer.learning_rate = 5e-6
  c.rollout.temperature = 1.0
  c.train.num_steps = 1500
  if preset in LARGE:
    c.mesh, c.train.micro_batches, c.model.param_dtype = LARGE[preset]
    c.rollout.problems_per_step = 64
    c.rollout.samples_per_problem = 8
    c.rollout.prompt_tokens = 512
    c.rollout.turn_tokens = (1024, 1024)
    c.model.dtype = 'bfloat16'
    c.model.remat = 'block'
    c.train.checkpoint_every_steps = 50
  elif preset == 'smollm2_135m':
    c.rollout.problems_per_step = 2
    c.rollout.samples_per_problem = 2
    c.rollout.prompt_tokens = 384
    c.rollout.turn_tokens = (96, 96)
    c.model.remat = 'block'
    c.train.micro_batches = 2
    c.train.chunk_tokens = 64
    c.train.checkpoint_every_steps = 10
    c.train.episodes_every_steps = 1
    c.eval.batch = 10
  else:
    raise ValueError(f'preset {preset!r} is none of {", ".join(sorted(LARGE))} and smollm2_135m')
  return c
