"""Stage I of SCoRe on MBPP (arXiv:2409.12917, Eq. 3): reward turn 2, hold turn 1 near the base.

The default is the paper's setting (Table 5: Adam 1e-5, batch 128, temperature 1, beta1 0.01, beta2
0.25) for Gemma 2 2B. Not stated in the paper and chosen here: 8 samples a
problem, 750 of the 1,500 steps for each stage, 512 tokens a turn. MBPP has 374 training problems
(371 without those that its test split repeats), so that 750 steps of 16 problems see each 32 times.

    python -m score_jax.main --config=configs/stage1_code.py \
      --config.model.checkpoint=WEIGHTS --config.data.path=DATA --workdir=runs/stage1_code

On a laptop, with SmolLM2-135M-Instruct from its GGUF file (it shows that everything runs, not that
it learns):

    python -m score_jax.main --config=configs/stage1_code.py:smollm2_135m \
      --config.model.checkpoint=SmolLM2-135M-Instruct.Q4_1.gguf --config.data.path=DATA \
      --config.train.num_steps=2 --workdir=runs/stage1_code_smollm2

Evaluation on MBPP's test split, and on HumanEval (`humaneval.py`):

    python -m score_jax.evaluate --run=runs/stage1_code

Programs run in a sandbox; on a machine that cannot confine them the run refuses to start.

Expected numbers: not yet run at the paper's setting.
"""

import dataclasses

from ml_collections import ConfigDict

from score_jax.core.config import default_config
from score_jax.objective import stages


def get_config(preset: str = 'gemma2_2b') -> ConfigDict:
  """Makes the config.

  Args:
    preset: 'gemma2_2b', the paper's setting, or 'smollm2_135m', for a laptop.

  Returns:
    The config of Stage I.

  Raises:
    ValueError: for another preset.
  """
  c = default_config()
  c.task.name = 'mbpp'
  c.model.preset = preset
  c.stage.update(dataclasses.asdict(stages.stage1(beta1=0.01, beta2=0.25)))
  c.optimizer.learning_rate = 1e-5
  c.rollout.temperature = 1.0
  c.train.num_steps = 750
  c.rollout.prompt_tokens = 1024  # three shots, sentence and tests
  c.eval.batch = 128  # all of them may run into the time limit, and two workers grade them
  c.grader.timeout_s = 10.0  # wall-clock; MBPP's slowest reference needs 3.2 s of processor time
  if preset == 'gemma2_2b':
    c.rollout.problems_per_step = 16
    c.rollout.samples_per_problem = 8
    c.rollout.turn_tokens = (512, 512)
    c.model.dtype = 'bfloat16'
    c.model.remat = 'block'
    c.mesh = (1, -1, 1)
    c.train.micro_batches = 2
    c.train.checkpoint_every_steps = 50
  elif preset == 'smollm2_135m':
    c.rollout.problems_per_step = 2
    c.rollout.samples_per_problem = 2
    c.rollout.turn_tokens = (96, 96)
    c.model.remat = 'block'
    c.train.micro_batches = 2
    c.train.chunk_tokens = 64
    c.train.checkpoint_every_steps = 10
    c.train.episodes_every_steps = 1
    c.eval.batch = 4
  else:
    raise ValueError(f"preset {preset!r} is neither 'gemma2_2b' nor 'smollm2_135m'")
  return c
