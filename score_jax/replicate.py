r"""The paper's comparisons in one command: every row, with several seeds, and one report.

    python -m score_jax.replicate --config=configs/replicate_arithmetic.py --seeds=3 \
      --workdir=runs/replicate

Rows run in processes of their own, `--jobs` at once; what is finished is kept, and what was
stopped goes on. `--rows=score,multiturn_rl` runs these and what they start from. Ends with
`report.md`, `report.html`, `report.json` and `figures/`, which `--report_only` makes anew.
"""

import os
import signal
import sys
from collections.abc import Sequence

from absl import flags
from etils import epath

from score_jax.cli import program

_SEEDS = flags.DEFINE_integer('seeds', 3, 'Seeds 0, 1, ... of each row; sweeps take one.', 1)
_ROWS = flags.DEFINE_list('rows', None, 'Rows to run; all of the config by default.')
_JOBS = flags.DEFINE_integer('jobs', 2, 'Rows at once, each in a process of its own.', 1)
_REPORT_ONLY = flags.DEFINE_bool('report_only', False, 'Write the report of what is finished.')
_ONE_ROW = flags.DEFINE_string('one_row', None, 'Run this row here; what is started for each row.')


def _seeds_of(row) -> list[int]:
  return list(range(min(_SEEDS.value, row.seeds or _SEEDS.value)))


def _command(name: str, workdir: epath.Path) -> list[str]:
  """The command line of one row: this one's, for one row."""
  given, is_value = [], False
  for argument in sys.argv[1:]:
    flag, equals, _ = argument.lstrip('-').partition('=')
    if is_value:
      is_value = False
    elif argument.startswith('-') and flag in ('one_row', 'workdir', 'rows', 'jobs'):
      is_value = not equals
    else:
      given.append(argument)
  module = [sys.executable, '-m', 'score_jax.replicate']
  return [*module, *given, f'--workdir={os.fspath(workdir)}', f'--one_row={name}']


def _report(workdir: epath.Path, shown: list, config, seeds: Sequence[int] | None) -> None:
  from score_jax.replication.report import write_report

  write_report(workdir, shown, config.report.to_dict(), seeds)
  print(f'report: {workdir / "report.md"}, {workdir / "report.html"}, {workdir / "report.json"}')


def _body() -> None:
  config = program.given_config('a replication', 'a quickstart')
  # Imported late: a wrong command line gets its message at once.
  import jax

  from score_jax.core.version import commit
  from score_jax.replication.jobs import end_with_parent, run_jobs
  from score_jax.replication.one_row import hardware, run_rows
  from score_jax.replication.rows import check_workdir, read_rows, with_starts
  from score_jax.replication.whole import reopen
  from score_jax.runs.interrupts import interruptible
  from score_jax.runs.lock import one_writer

  workdir = epath.Path(os.path.abspath(program.WORKDIR.value or os.path.join('runs', 'replicate')))
  rows = read_rows(config)
  asked = [_ONE_ROW.value] if _ONE_ROW.value else _ROWS.value
  names = with_starts(asked or list(rows), rows)
  about = {'commit': commit(), 'hardware': hardware()}
  if _ONE_ROW.value:
    end_with_parent()
    # Most rows have the same shapes: what one of them compiled serves the others.
    jax.config.update('jax_compilation_cache_dir', os.fspath(workdir / 'compiled'))
    row = rows[_ONE_ROW.value]
    run_rows(config, [(row, seed) for seed in _seeds_of(row)], workdir, about)
    return
  shown, seeds = [row for row in rows.values() if row.group != 'part'], range(_SEEDS.value)
  if _REPORT_ONLY.value:  # also of rows that another program is at
    check_workdir(workdir, config, [rows[name] for name in names])
    return _report(workdir, shown, config, seeds if _SEEDS.present else None)
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  with one_writer(workdir):
    check_workdir(workdir, config, [rows[name] for name in names])
    reopen(workdir, [rows[name] for name in names], _seeds_of)
    kept = f'each row is kept in {workdir} as far as it came; the same command goes on'
    try:
      with interruptible(lambda: signal.default_int_handler(signal.SIGINT, None), lambda: kept):
        failed = run_jobs(
          names, rows, _seeds_of, lambda name: _command(name, workdir), workdir, _JOBS.value
        )
    except KeyboardInterrupt as error:
      error.add_note(kept)
      raise
    _report(workdir, shown, config, seeds)
  if failed:
    program.fail(f'{len(failed)} rows failed: {", ".join(failed)}; the same command tries again')


if __name__ == '__main__':
  program.run_program(_body, 'config', 'workdir')
