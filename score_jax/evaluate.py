"""Evaluates the base model or a run: `python -m score_jax.evaluate --run=runs/stage2`.

A run directory knows its config; `--config` (with its own flags) overrides it, and without `--run`
the base model of that config is evaluated. Writes `metrics.json` and one line per problem in
`records.jsonl`.
"""

import os

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
from score_jax.evaluation.protocol import (
  check_evaluation,
  evaluate_policy,
  metrics_table,
  save_evaluation,
)
from score_jax.runs.watchdog import Watchdog
from score_jax.setup.task import make_task


def _body() -> None:
  config = policy_config()
  task, count = make_task(config), NUM_PROBLEMS.value
  temperature = config.eval.temperature if TEMPERATURE.value is None else TEMPERATURE.value
  policy = load_policy(
    config, lambda tokenizer: check_evaluation(config, task, tokenizer, temperature, count)
  )
  name = f'eval_{task.name}_step{policy.step}_t{temperature:g}'
  run = RUN.value or os.path.join('runs', 'base')
  folder = program.WORKDIR.value or os.path.join(run, name)
  watchdog = Watchdog(folder, config.train.hang_s)
  try:
    evaluation = evaluate_policy(policy, task, temperature, count, watchdog)
  finally:
    task.close()
  about = {
    'evaluated': policy.path,
    'task': task.name,
    'step': policy.step,
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
  program.run_program(_body, *POLICY_FLAGS, 'workdir', 'num_problems', 'temperature')
