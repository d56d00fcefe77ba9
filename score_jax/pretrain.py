"""Makes the small base policy of the quickstart: tokenizer, pretraining, weights folder.

    python -m score_jax.pretrain --config=configs/pretrain_arithmetic.py --workdir=DIR

Prints the mixture that it trains on. The package ships what this command made, in
`score_jax/assets/arithmetic`; `configs/pretrain_worked.py` makes another one.
"""

import os

from etils import epath

from score_jax.cli import program
from score_jax.runs.files import check_writable
from score_jax.runs.lock import LOCK_FILE, one_writer
from score_jax.training.loop import exit_status
from score_jax.training.pretraining import describe_mixture, make_base, phases_of


def _body() -> None:
  config = program.given_config('a pretraining')
  folder = epath.Path(program.WORKDIR.value or os.path.join('runs', 'pretrain_arithmetic'))
  check_writable(folder)
  # What a start leaves that was killed may be there.
  left = ('tokenizer.model', LOCK_FILE)
  if folder.exists() and [path for path in folder.iterdir() if path.name not in left]:
    raise ValueError(f'--workdir={folder} is there already: choose a new folder')
  print(describe_mixture(phases_of(config), config.batch))
  with one_writer(folder), exit_status():
    num_params = make_base(config, folder)
  print(f'{num_params:,} parameters in {folder}')


if __name__ == '__main__':
  program.run_program(_body, 'config', 'workdir')
