"""Evaluates the base model or a run: `python -m score_jax.evaluate --run=runs/stage2`.

A run directory knows its config; `--config` (with its own flags) overrides it, and without `--run`
the base model of that config is evaluated. Writes `metrics.json` and one line per problem in
`records.jsonl`, to a folder of the run that is named by task, step, temperature and a digest of all
that the figures depend on, which `metrics.json` lists under `measurement`.
"""

import os

from absl import logging

from score_jax.cli import distributed, program
from score_jax.cli.run_input import (
  NUM_PROBLEMS,
  POLICY_FLAGS,
  RUN,
  TEMPERATURE,
  load_policy,
  policy_config,
)
from score_jax.core.version import commit
from score_jax.evaluation.measurement import check_folder, name_of
from score_jax.evaluation.protocol import (
  check_evaluation,
  evaluate_planned,
  metrics_table,
  plan_evaluation,
  save_evaluation,
)
from score_jax.runs.episodes import missing_records
from score_jax.runs.files import check_writable
from score_jax.runs.identity import run_directory
from score_jax.runs.lock import one_writer
from score_jax.runs.watchdog import Watchdog
from score_jax.setup.task import make_task


def _body() -> None:
  config = policy_config()
  run = str(run_directory(RUN.value)) if RUN.value else os.path.join('runs', 'base')
  check_writable(program.WORKDIR.value or run)
  task, count = make_task(config), NUM_PROBLEMS.value
  temperature = config.eval.temperature if TEMPERATURE.value is None else TEMPERATURE.value
  policy = load_policy(
    config, lambda tokenizer: check_evaluation(config, task, tokenizer, temperature, count)
  )
  for text in missing_records(run) if RUN.value and distributed.is_speaker() else ():
    logging.warning('%s. The evaluation does not need it', text)
  planned = plan_evaluation(policy, task, temperature, count)
  name = f'eval_{task.name}_step{policy.step}_t{temperature:g}_{name_of(planned.measurement)}'
  folder = program.WORKDIR.value or os.path.join(run, name)
  check_folder(folder, planned.measurement)
  watchdog = Watchdog(folder, config.train.hang_s)
  # A folder of its own, so that a run can be evaluated while it trains.
  with one_writer(folder):
    try:
      evaluation = evaluate_planned(planned, task, watchdog)
    finally:
      task.close()
    about = {
      'evaluated': policy.path,
      'task': task.name,
      'step': policy.step,
      'temperature': temperature,
      'seed': config.seed,
      'commit': commit(),
    }
    if not distributed.is_speaker():
      return
    save_evaluation(folder, evaluation, planned.measurement, about)
    print(metrics_table(evaluation.metrics))
    left_out = evaluation.num_left_out
    print(f'{len(evaluation.records)} problems, {left_out} left out; records in {folder}')


if __name__ == '__main__':
  program.run_program(_body, *POLICY_FLAGS, 'workdir', 'num_problems', 'temperature')
