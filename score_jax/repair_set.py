r"""MBPP-R: makes a set of failing programs, and evaluates their repair in one turn.

    python -m score_jax.repair_set --mode=build --set=sets/mbpp_r --config=configs/stage1_code.py \
      --config.model.checkpoint=WEIGHTS --config.data.path=DATA
    python -m score_jax.repair_set --mode=evaluate --set=sets/mbpp_r --run=runs/stage2_code

Both take the flags of `score_jax.evaluate`: `--run` and `--which` name the policy (the config's
base model without), `--num_problems` how many problems of MBPP, or programs of the set, are taken,
and `--temperature` how it samples (by default as in training to build, greedily to evaluate).
"""

import json
import os

from absl import flags
from etils import epath

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
from score_jax.evaluation import mbpp_r
from score_jax.evaluation.measurement import check_folder, name_of
from score_jax.evaluation.protocol import check_evaluation, metrics_table, save_evaluation
from score_jax.evaluation.repair import check_repair
from score_jax.runs.files import check_writable, to_json, write_together
from score_jax.runs.identity import run_directory
from score_jax.runs.lock import one_writer
from score_jax.setup.policy import Policy
from score_jax.setup.task import make_task
from score_jax.tasks.base import Task

_MODE = flags.DEFINE_enum('mode', 'build', ['build', 'evaluate'], 'Make a set, or evaluate on one.')
_SET = flags.DEFINE_string('set', None, 'Folder of the set: written by build, read by evaluate.')
_SPLIT = flags.DEFINE_enum('split', 'test', ['test', 'train'], "build: MBPP's split.")
_SAMPLES = flags.DEFINE_integer('samples', 20, 'build: programs sampled for each problem.', 1)
_KEEP = flags.DEFINE_integer('keep', 20, 'build: most failing programs kept of one problem.', 1)


def _build(
  policy: Policy, task: Task, folder: epath.Path, count: int, temperature: float, about: dict
) -> None:
  """Writes programs.jsonl and about.json."""
  with one_writer(folder):
    records, found = mbpp_r.build_set(
      policy, task, _SPLIT.value, count, _SAMPLES.value, _KEEP.value, temperature
    )
    if not distributed.is_speaker():
      return
    text = json.dumps(about | found, indent=2)
    lines = ''.join(f'{to_json(record)}\n' for record in records)
    write_together(folder, {'programs.jsonl': lines, 'about.json': text + '\n'})
  print(text)


def _evaluate(
  policy: Policy, task: Task, folder: epath.Path, count: int, temperature: float, about: dict
) -> None:
  """Writes what `score_jax.evaluate` writes."""
  planned = mbpp_r.plan_repair(policy, task, count, temperature)
  name = f'repair_step{policy.step}_t{temperature:g}_{name_of(planned.measurement)}'
  target = program.WORKDIR.value or os.path.join(_run(), name)
  check_folder(target, planned.measurement)
  with one_writer(target):
    found = mbpp_r.evaluate_set(planned, task)
    if not distributed.is_speaker():
      return
    save_evaluation(target, found, planned.measurement, about | {'set': str(folder)})
  print(metrics_table(found.metrics))
  print(f'{len(found.records)} programs, {found.num_left_out} left out; records in {target}')


def _run() -> str:
  return str(run_directory(RUN.value)) if RUN.value else os.path.join('runs', 'base')


def _body() -> None:
  if not _SET.value:
    program.fail('--set is not set: the folder of the set of failing programs')
  config = policy_config()
  if config.task.name != 'mbpp':
    raise ValueError(
      f"config.task.name={config.task.name!r}, but MBPP-R is made of 'mbpp': take a run of "
      'configs/stage1_code.py, or set --config to it'
    )
  is_build, folder, count = _MODE.value == 'build', epath.Path(_SET.value), NUM_PROBLEMS.value or 0
  written = (folder, '--set') if is_build else (program.WORKDIR.value or _run(), '--workdir')
  check_writable(*written)
  temperature = TEMPERATURE.value
  if temperature is None:
    temperature = config.rollout.temperature if is_build else config.eval.temperature
  task = make_task(config) if is_build else mbpp_r.load_set(config, folder)
  split = _SPLIT.value if is_build else 'test'

  def check(tokenizer):
    spec = check_evaluation(config, task, tokenizer, temperature, count, split)
    if not is_build:
      check_repair(spec)

  policy = load_policy(config, check)
  about = {
    'policy': policy.path,
    'step': policy.step,
    'temperature': temperature,
    'seed': config.seed,
    'commit': commit(),
  }
  action = _build if is_build else _evaluate
  try:
    action(policy, task, folder, count, temperature, about)
  finally:
    task.close()


if __name__ == '__main__':
  program.run_program(_body, *POLICY_FLAGS, 'workdir', 'num_problems', 'temperature')
