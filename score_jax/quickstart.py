"""Base, Stage I, Stage II and plain multi-turn RL in one go, and a report.

    python -m score_jax.quickstart --workdir=runs/quickstart

A replication of a few rows and one seed, in one process. Each row is a run directory of its own
under the work directory; a second start goes on where the first was stopped. Ends with
`report.json`, `report.md` and `training.png`.
"""

import os

from absl import flags
from etils import epath

from score_jax.cli import program
from score_jax.core.config import read_config
from score_jax.core.version import commit

_SEED = flags.DEFINE_integer('seed', None, 'Root of every random number; the config has 0.')


def _body() -> None:
  config = program.given_config(
    'a quickstart', default=read_config('../configs/quickstart.py', beside=__file__)
  )
  if _SEED.value is not None:
    config.run.seed = _SEED.value
  # Imported late: a wrong command line gets its message at once.
  from score_jax.replication.one_row import hardware, run_rows
  from score_jax.replication.report import write_short_report
  from score_jax.replication.rows import check_workdir, read_rows
  from score_jax.replication.whole import reopen
  from score_jax.runs.lock import one_writer

  workdir = epath.Path(os.path.abspath(program.WORKDIR.value or os.path.join('runs', 'quickstart')))
  rows, seed = list(read_rows(config).values()), config.run.seed
  with one_writer(workdir):
    check_workdir(workdir, config, rows)
    reopen(workdir, rows, lambda row: [seed])
    about = {'commit': commit(), 'hardware': hardware()}
    run_rows(config, [(row, seed) for row in rows], workdir, about)
    write_short_report(workdir, rows, seed)
  print((workdir / 'report.md').read_text())
  print(f'report: {workdir / "report.md"}, {workdir / "report.json"}, {workdir / "training.png"}')


if __name__ == '__main__':
  program.run_program(_body, 'config', 'workdir')
