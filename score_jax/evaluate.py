"""Evaluates the base model or a run: `python -m score_jax.evaluate --run=runs/stage2`.

A run directory knows its config; `--config` (with its own flags) overrides it, and without `--run`
the base model of that config is evaluated. Writes `metrics.json` and one line per problem in
`records.jsonl`.
"""

import dataclasses
import json
import os

import jax
import numpy as np
from absl import flags
from etils import epath
from ml_collections import ConfigDict

from score_jax import base_model, distributed, program, setup_run, trainable
from score_jax.core import sharding
from score_jax.core.version import commit
from score_jax.procedures.evaluation import Evaluation, Sampler, evaluate
from score_jax.procedures.text import encode_prompts
from score_jax.run_input import RUN, WHICH, run_config
from score_jax.runs.files import to_json, write_atomic

_NUM_PROBLEMS = flags.DEFINE_integer(
  'num_problems', None, 'Evaluate this many of the problems; config.eval.num_problems by default.'
)
_TEMPERATURE = flags.DEFINE_float(
  'temperature', None, '0 is greedy; config.eval.temperature by default.'
)


def evaluate_params(
  config: ConfigDict,
  base: base_model.Base,
  params: dict,
  task,
  num_problems: int,
  temperature: float,
  mesh: jax.sharding.Mesh,
) -> Evaluation:
  """Evaluates parameters on a task's held-out problems.

  Args:
    config: budgets, batch and seed.
    base: architecture and tokenizer.
    params: what to evaluate.
    task: problems and grader.
    num_problems: how many, evenly spread over the split; 0 takes all.
    temperature: 0 is greedy.
    mesh: the devices.

  Returns:
    Records and metrics.

  Raises:
    ValueError: if there are fewer problems.
  """
  problems = list(task.test)
  if num_problems > len(problems):
    raise ValueError(f'num_problems={num_problems}, but the split has {len(problems)}')
  if num_problems:
    problems = [problems[i] for i in np.arange(num_problems) * len(problems) // num_problems]
  prompts = encode_prompts(problems, task, base.tokenizer, config.rollout.prompt_tokens)
  setup_run.warn_too_long(prompts, 'evaluation', config)
  spec = dataclasses.replace(
    setup_run.make_rollout_spec(config, task, base.tokenizer),
    top_k=config.eval.top_k,
    top_p=config.eval.top_p,
  )
  sampler = Sampler(
    base.decoder,
    spec,
    params,
    base.tokenizer,
    batch=config.eval.batch,
    temperature=temperature,
    seed=config.seed,
    mesh=mesh,
  )
  return evaluate(sampler, prompts, task)


def metrics_table(metrics: dict[str, dict[str, float]]) -> str:
  """Lays out metrics with their 95% intervals as a Markdown table.

  Args:
    metrics: of an `Evaluation`.

  Returns:
    One row for each metric.

  Example:
    >>> print(metrics_table({'acc_t1': {'mean': 0.5, 'low': 0.4, 'high': 0.6}}))
    | metric | mean | 95% interval |
    |---|---|---|
    | acc_t1 | 0.500 | 0.400 to 0.600 |
  """
  rows = [
    f'| {key} | {m["mean"]:.3f} | {m["low"]:.3f} to {m["high"]:.3f} |' for key, m in metrics.items()
  ]
  return '\n'.join(['| metric | mean | 95% interval |', '|---|---|---|', *rows])


def save_evaluation(folder: epath.PathLike, evaluation: Evaluation, about: dict) -> None:
  """Writes records.jsonl and then metrics.json, whose presence says that both are whole.

  Args:
    folder: made where it does not exist.
    evaluation: what was found.
    about: what else metrics.json tells, such as seed and commit.
  """
  folder = epath.Path(folder)
  lines = ''.join(to_json(record) + '\n' for record in evaluation.records)
  write_atomic(folder / 'records.jsonl', lines)
  write_atomic(folder / 'metrics.json', json.dumps(about | evaluation.metrics, indent=2) + '\n')


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
    restored = trainable.restore_policy(run, base, WHICH.value)
    params, step = restored.state, restored.step
  task = setup_run.make_task(config)
  temperature = config.eval.temperature if _TEMPERATURE.value is None else _TEMPERATURE.value
  count = config.eval.num_problems if _NUM_PROBLEMS.value is None else _NUM_PROBLEMS.value
  try:
    evaluation = evaluate_params(config, base, params, task, count, temperature, mesh)
  finally:
    task.close()
  name = f'eval_{task.name}_step{step}_t{temperature:g}'
  folder = program.WORKDIR.value or os.path.join(run or os.path.join('runs', 'base'), name)
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
