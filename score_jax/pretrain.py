"""Makes the small base policy of the quickstart: tokenizer, pretraining, weights folder.

    python -m score_jax.pretrain --config=configs/pretrain_arithmetic.py --workdir=DIR

Prints the mixture that it trains on. The package ships what this command made, in
`score_jax/assets/arithmetic`.
"""

import os

from score_jax.cli import program
from score_jax.training.loop import exit_status
from score_jax.training.pretraining import describe_mixture, make_base, mixture_of


def _body() -> None:
  config = program.CONFIG.value
  if config is None:
    program.fail('--config is not set: --config=configs/pretrain_arithmetic.py')
  phases = [(p.steps, mixture_of(p, config)) for p in config.phases]
  print(describe_mixture(phases, config.batch))
  folder = program.WORKDIR.value or os.path.join('runs', 'pretrain_arithmetic')
  with exit_status():
    num_params = make_base(config, folder)
  print(f'{num_params:,} parameters in {folder}')


if __name__ == '__main__':
  program.run_program(_body)
