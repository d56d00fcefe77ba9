"""Trains one stage: `python -m score_jax.main --config=configs/stage1_math.py --workdir=DIR`.

Started again with the same arguments it goes on where it was stopped. `--dry_run` shows what would
be trained and exits.
"""

import contextlib
import os

from absl import flags

from score_jax.cli import distributed, program

_DRY_RUN = flags.DEFINE_bool(
  'dry_run', False, 'Print the config, the stage, the memory and one decoded episode, and exit.'
)


def workdir_of(config) -> str:
  """The run directory: --workdir, or runs/ with the stage's name."""
  return program.WORKDIR.value or os.path.join('runs', config.stage.name)


def _body() -> None:
  config = program.checked_config()
  # Imported late: a wrong command line is refused at once.
  from score_jax.planning.dry_run import show
  from score_jax.planning.memory import count_memory, memory_table
  from score_jax.runs.lock import one_writer
  from score_jax.setup.run import prepare
  from score_jax.training.imitate import imitate
  from score_jax.training.loop import exit_status
  from score_jax.training.train import train

  distributed.join()
  workdir = workdir_of(config)
  # Before the model is loaded: a directory in use is refused at once.
  with contextlib.nullcontext() if _DRY_RUN.value else one_writer(workdir):
    setup = prepare(config, None if _DRY_RUN.value else workdir)
    try:
      if _DRY_RUN.value:
        show(setup)
        return
      with exit_status():
        if config.supervised.method:
          state = imitate(setup, workdir)
        else:
          if distributed.is_speaker():
            print(memory_table(count_memory(setup)))
            print('--dry_run compiles both programs and prints all that they take.', flush=True)
          state = train(setup, workdir)
      if distributed.is_speaker():
        print(f'done: {int(state.step)} steps of {config.stage.name} in {workdir}')
    finally:
      setup.task.close()


if __name__ == '__main__':
  program.run_program(_body, 'config', 'workdir', 'distributed')
