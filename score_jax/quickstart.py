"""Base, Stage I, Stage II and plain multi-turn RL in one go, and a report.

    python -m score_jax.quickstart --workdir=runs/quickstart

Each row is a run directory of its own under the work directory; a second start goes on where the
first was stopped. Ends with `report.json`, `report.md` and `training.png`.
"""

import json
import os
import pathlib
import runpy
import sys
import time

from absl import flags
from etils import epath
from ml_collections import ConfigDict

from score_jax.cli import program
from score_jax.core.config_check import check_config
from score_jax.core.version import commit
from score_jax.runs.files import write_atomic

_DEFAULT_CONFIG = pathlib.Path(__file__).parents[1] / 'configs' / 'quickstart.py'
_SEED = flags.DEFINE_integer('seed', None, 'Root of every random number; the config has 0.')
# The metrics of a report's row.
METRICS = ('acc_t1', 'acc_t2', 'delta', 'i2c', 'c2i', 'changed')
TEMPERATURES = {'greedy': 0.0, 'sampled': 1.0}


def row_config(config: ConfigDict, row: ConfigDict, workdir: epath.Path) -> ConfigDict:
  """Makes the run config of one row.

  Args:
    config: of `configs/quickstart.py`.
    row: one of `config.rows`.
    workdir: where the rows' run directories lie.

  Returns:
    A checked run config.

  Raises:
    ValueError: for unknown keys, or a row that starts from a row that is not there.
  """
  run = config.run.copy_and_resolve_references()
  run.stage.update(row.stage)
  run.train.num_steps = row.num_steps
  run.optimizer.schedule = row.schedule
  run.optimizer.decay_steps = row.num_steps
  if row.init:
    names = [other.stage.name for other in config.rows]
    if row.init not in names:
      raise ValueError(f'config.rows: init={row.init!r} is none of {names}')
    run.init.path = str(workdir / row.init)
  check_config(run)
  return run


def run_row(config: ConfigDict, row: ConfigDict | None, workdir: epath.Path, code: str) -> dict:
  """Trains and evaluates one row, or reads what an earlier start made.

  Args:
    config: of `configs/quickstart.py`.
    row: one of `config.rows`, or None for the base policy, which is not trained.
    workdir: where the rows' run directories lie.
    code: the commit.

  Returns:
    The row of `report.json`; its `seconds` are those of this start, not of one that was stopped.
  """
  from score_jax.core import sharding
  from score_jax.evaluation import protocol
  from score_jax.setup import run as setup_run
  from score_jax.setup import trainable
  from score_jax.training import train

  name = 'base' if row is None else row.stage.name
  done = workdir / name / 'row.json'
  if done.exists():
    return json.loads(done.read_text())
  start_s = time.monotonic()
  run = row_config(config, config.rows[0] if row is None else row, workdir)
  setup = setup_run.prepare(run)
  result = {}
  try:
    params = sharding.on_devices(setup.base.params)
    if row is not None:
      train.train(setup, workdir / name)
      params = trainable.restore_policy(str(workdir / name), setup.base, run.init.which).params
    for kind, temperature in TEMPERATURES.items():
      found = protocol.evaluate_params(
        run, setup.base, params, setup.task, run.eval.num_problems, temperature, setup.mesh
      )
      about = {'row': name, 'temperature': temperature, 'seed': run.seed, 'commit': code}
      protocol.save_evaluation(workdir / name / f'eval_{kind}', found, about)
      result['num_problems'] = len(found.records)
      result[kind] = {key: found.metrics[key] for key in METRICS}
  finally:
    setup.task.close()
  result |= {'seed': run.seed, 'commit': code, 'seconds': round(time.monotonic() - start_s, 1)}
  write_atomic(done, json.dumps(result, indent=2) + '\n')
  return result


def _body() -> None:
  config = program.CONFIG.value
  if config is None:
    config = default_config_file()
  if _SEED.value is not None:
    config.run.seed = _SEED.value
  workdir = epath.Path(program.WORKDIR.value or os.path.join('runs', 'quickstart'))
  from score_jax.replication import small_report
  from score_jax.runs.identity import check_or_write_config
  from score_jax.training.loop import Preempted, TrainingStopped

  plain = config.to_dict() | {'rows': [row.to_dict() for row in config.rows]}
  check_or_write_config(workdir, plain, exempt=('run.train.progress',))
  code = commit()
  rows = {}
  try:
    for row in (None, *config.rows):
      name = 'base' if row is None else row.stage.name
      print(f'== {name}', flush=True)
      rows[name] = run_row(config, row, workdir, code)
  except Preempted as error:
    print(error, file=sys.stderr)
    raise SystemExit(143) from None
  except TrainingStopped as error:
    print(f'stopped: {error}', file=sys.stderr)
    raise SystemExit(1) from None
  small_report.write(workdir, config, rows)
  print((workdir / 'report.md').read_text())
  print(f'report: {workdir / "report.md"}, {workdir / "report.json"}, {workdir / "training.png"}')


def default_config_file() -> ConfigDict:
  """Reads `configs/quickstart.py` of this checkout, for a start without --config."""
  if not _DEFAULT_CONFIG.exists():
    raise ValueError(f'there is no {_DEFAULT_CONFIG}: name one, --config=configs/quickstart.py')
  return runpy.run_path(str(_DEFAULT_CONFIG))['get_config']()


if __name__ == '__main__':
  program.run_program(_body)
