"""Evaluates the base model or a run: `python -m score_jax.evaluate --run=runs/stage2`.

A run directory knows its config; `--config` (with its own flags) overrides it, and without `--run`
the base model of that config is evaluated. Writes `metrics.json` and one line per problem in
`records.jsonl`.
"""

import os

from etils import epath

from score_jax.cli import distributed, program
from score_jax.cli.run_input import (
  NUM_PROBLEMS,
  RUN,
  TEMPERATURE,
  WHICH,
  check_as_trained,
  run_config,
)
from score_jax.core import sharding
from score_jax.core.version import commit
from score_jax.evaluation.protocol import evaluate_params, metrics_table, save_evaluation
from score_jax.runs.watchdog import Watchdog
from score_jax.setup import base_model, trainable
from score_jax.setup import run as setup_run


def _body() -> None:
  run = RUN.value
  if run and not epath.Path(run).exists():
    program.fail(f'--run={run} does not exist')
  config = program.checked_config(run_config(run) if run and program.CONFIG.value is None else None)
  distributed.join()
  mesh = sharding.make_mesh(config.mesh)
  base = base_model.load_base(config, mesh)
  params, step = base.params, 0
  if run:
    check_as_trained(config, run)
    restored = trainable.restore_policy(run, base, WHICH.value)
    params, step = restored.params, restored.step
  task = setup_run.make_task(config)
  temperature = config.eval.temperature if TEMPERATURE.value is None else TEMPERATURE.value
  count = config.eval.num_problems if NUM_PROBLEMS.value is None else NUM_PROBLEMS.value
  name = f'eval_{task.name}_step{step}_t{temperature:g}'
  folder = program.WORKDIR.value or os.path.join(run or os.path.join('runs', 'base'), name)
  watchdog = Watchdog(folder, config.train.hang_s)
  try:
    evaluation = evaluate_params(config, base, params, task, count, temperature, mesh, watchdog)
  finally:
    task.close()
  about = {
    'evaluated': run or base.path,
    'task': task.name,
    'step': step,
    'temperature': temperature,
    'num_problems': len(evaluation.records),
    'num_left_out': evaluation.num_left_out,
    'seed': config.seed,
    'commit': commit(),
  }
  if not distributed.is_speaker():
    return
  save_evaluation(folder, evaluation, about)
  print(metrics_table(evaluation.metrics))
  left_out = evaluation.num_left_out
  print(f'{len(evaluation.records)} problems, {left_out} left out; records in {folder}')


if __name__ == '__main__':
  program.run_program(_body)
