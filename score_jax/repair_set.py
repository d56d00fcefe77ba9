"""MBPP-R: makes a set of failing programs, and evaluates their repair in one turn.

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
from score_jax.cli.run_input import NUM_PROBLEMS, RUN, TEMPERATURE, load_policy, policy_config
from score_jax.core.version import commit
from score_jax.evaluation import mbpp_r
from score_jax.evaluation.measurement import check_folder, name_of
from score_jax.evaluation.protocol import metrics_table, save_evaluation
from score_jax.runs.files import check_writable, to_json, write_together
from score_jax.runs.identity import run_directory
from score_jax.setup.policy import Policy

_MODE = flags.DEFINE_enum('mode', 'build', ['build', 'evaluate'], 'Make a set, or evaluate on one.')
_SET = flags.DEFINE_string('set', None, 'Folder of the set: written by build, read by evaluate.')
_SPLIT = flags.DEFINE_enum('split', 'test', ['test', 'train'], "build: MBPP's split.")
_SAMPLES = flags.DEFINE_integer('samples', 20, 'build: programs sampled for each problem.', 1)
_KEEP = flags.DEFINE_integer('keep', 20, 'build: most failing programs kept of one problem.', 1)


def _build(policy: Policy, folder: epath.Path, count: int, temperature: float, about: dict) -> None:
  """Writes programs.jsonl and about.json."""
  records, found = mbpp_r.build_set(
    policy, _SPLIT.value, count, _SAMPLES.value, _KEEP.value, temperature
  )
  if not distributed.is_speaker():
    return
  text = json.dumps(about | found, indent=2)
  lines = ''.join(f'{to_json(record)}\n' for record in records)
  write_together(folder, {'programs.jsonl': lines, 'about.json': text + '\n'})
  print(text)


def _evaluate(
  policy: Policy, folder: epath.Path, count: int, temperature: float, about: dict
) -> None:
  """Writes what `score_jax.evaluate` writes."""

  def target(measurement: dict) -> str:
    name = f'repair_step{policy.step}_t{temperature:g}_{name_of(measurement)}'
    return program.WORKDIR.value or os.path.join(_run(), name)

  found, measurement = mbpp_r.evaluate_set(
    policy, folder, count, temperature, lambda planned: check_folder(target(planned), planned)
  )
  if not distributed.is_speaker():
    return
  save_evaluation(target(measurement), found, measurement, about | {'set': str(folder)})
  print(metrics_table(found.metrics))
  print(f'{len(found.records)} programs, {found.num_left_out} left out; records in {target(measurement)}')


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
  is_build = _MODE.value == 'build'
  check_writable(_SET.value if is_build else program.WORKDIR.value or _run())
  policy = load_policy(config)
  temperature = TEMPERATURE.value
  if temperature is None:
    temperature = config.rollout.temperature if is_build else config.eval.temperature
  about = {
    'policy': policy.path,
    'step': policy.step,
    'temperature': temperature,
    'seed': config.seed,
    'commit': commit(),
  }
  action = _build if is_build else _evaluate
  action(policy, epath.Path(_SET.value), NUM_PROBLEMS.value or 0, temperature, about)


if __name__ == '__main__':
  program.run_program(_body)
