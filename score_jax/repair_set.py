"""MBPP-R: makes a set of failing programs, and evaluates their repair in one turn.

    python -m score_jax.repair_set --mode=build --set=sets/mbpp_r --config=configs/stage1_code.py \
      --config.model.checkpoint=WEIGHTS --config.data.path=DATA
    python -m score_jax.repair_set --mode=evaluate --set=sets/mbpp_r --run=runs/stage2_code

Both take the flags of `score_jax.evaluate`: `--run` and `--which` name the policy (the config's
base model without), `--num_problems` how many problems of MBPP, or given programs, are taken, and
`--temperature` how it samples (by default as in training to build, greedily to evaluate).
"""

import dataclasses
import json
import os

import jax
import numpy as np
from absl import flags
from etils import epath
from ml_collections import ConfigDict

from score_jax.cli import distributed, program
from score_jax.cli.run_input import RUN, WHICH, run_config
from score_jax.core import sharding
from score_jax.core.version import commit
from score_jax.evaluation import protocol, repair
from score_jax.rollout.sampler import Sampler
from score_jax.rollout.text import Prompts, encode_prompts
from score_jax.runs.files import to_json, write_atomic
from score_jax.setup import base_model, trainable
from score_jax.setup import run as setup_run
from score_jax.setup import task as task_loader
from score_jax.tasks.base import Task
from score_jax.tasks.code.extract import extract_program
from score_jax.tasks.mbpp_r import forced_answer, load_mbpp_r

_MODE = flags.DEFINE_enum('mode', 'build', ['build', 'evaluate'], 'Make a set, or evaluate on one.')
_SET = flags.DEFINE_string('set', None, 'Folder of the set: written by build, read by evaluate.')
_SPLIT = flags.DEFINE_enum('split', 'test', ['test', 'train'], "build: MBPP's split.")
_SAMPLES = flags.DEFINE_integer('samples', 20, 'build: programs sampled for each problem.', 1)
_KEEP = flags.DEFINE_integer('keep', 20, 'build: most failing programs kept of one problem.', 1)

# Task ids of MBPP at which the splits begin; a problem's id is its position in its split.
_FIRST_TASK_ID = {'test': 11, 'train': 601}


@dataclasses.dataclass(frozen=True)
class Policy:
  """A model on its devices.

  Attributes:
    config: of the run, or the one given.
    mesh: the devices.
    base: architecture and tokenizer.
    params: the policy's parameters.
    path: where they come from.
    step: updates done.
  """

  config: ConfigDict
  mesh: jax.sharding.Mesh
  base: base_model.Base
  params: dict
  path: str
  step: int

  def about(self, temperature: float) -> dict:
    """What a file made with it should tell."""
    return {
      'policy': self.path,
      'step': self.step,
      'temperature': temperature,
      'seed': self.config.seed,
      'commit': commit(),
    }


def load_policy(run: str | None, which: str) -> Policy:
  """Reads the run's policy, or the base model of the config on the command line.

  Args:
    run: run directory, or None.
    which: 'best' or 'latest'.

  Returns:
    The policy.

  Raises:
    ValueError: for a config of another task than MBPP, or inputs that are missing or broken.
  """
  default = run_config(run) if run and program.CONFIG.value is None else None
  config = program.checked_config(default)
  if config.task.name != 'mbpp':
    raise ValueError(
      f"config.task.name={config.task.name!r}, but MBPP-R is made of 'mbpp': take a run of "
      'configs/stage1_code.py, or set --config to it'
    )
  distributed.join()
  mesh = sharding.make_mesh(config.mesh)
  base = base_model.load_base(config, mesh)
  if not run:
    return Policy(config, mesh, base, base.params, base.path, 0)
  restored = trainable.restore_policy(run, base, which)
  return Policy(config, mesh, base, restored.params, run, restored.step)


def _prompts(policy: Policy, task: Task, problems: list, count: int) -> Prompts:
  """As many of the problems as asked for, evenly spread; 0 takes all."""
  if count > len(problems):
    raise ValueError(f'--num_problems={count}, but there are {len(problems)}')
  if count:
    problems = [problems[i] for i in np.arange(count) * len(problems) // count]
  budget = policy.config.rollout.prompt_tokens
  prompts = encode_prompts(problems, task, policy.base.tokenizer, budget)
  setup_run.warn_too_long(prompts, 'repair', policy.config)
  return prompts


def _sampler(policy: Policy, task: Task, temperature: float) -> Sampler:
  return protocol.make_sampler(
    policy.config, policy.base, policy.params, task, temperature, policy.mesh
  )


def build(policy: Policy, folder: epath.Path, count: int, temperature: float) -> None:
  """Samples programs, keeps those that fail, and writes programs.jsonl and about.json.

  Args:
    policy: writes the programs.
    folder: of the set.
    count: problems taken, evenly spread; 0 takes all.
    temperature: of the sampler.

  Raises:
    ValueError: if no program failed.
  """
  task = task_loader.make_task(policy.config)
  try:
    prompts = _prompts(policy, task, list(getattr(task, _SPLIT.value)), count)
    sampler = _sampler(policy, task, temperature)
    found = repair.collect_failures(sampler, prompts, task, _SAMPLES.value, _KEEP.value)
  finally:
    task.close()
  if not found.kept:
    raise ValueError(f'no program failed, so there is nothing to repair: {found.reasons}')
  lines = [
    to_json(
      {
        'task_id': failure.problem.id + _FIRST_TASK_ID[_SPLIT.value],
        'question': failure.problem.question,
        'tests': failure.problem.answer,
        'program': extract_program(failure.text),
        'reason': failure.reason,
      }
    )
    for failure in found.kept
  ]
  about = policy.about(temperature) | {
    'split': _SPLIT.value,
    'samples': _SAMPLES.value,
    'keep': _KEEP.value,
    'num_problems': len(prompts.problems),
    'num_problems_failed': len({failure.problem.id for failure in found.kept}),
    'num_programs': len(found.kept),
    'sampled': found.reasons,
  }
  if not distributed.is_speaker():
    return
  write_atomic(folder / 'programs.jsonl', ''.join(f'{line}\n' for line in lines))
  write_atomic(folder / 'about.json', json.dumps(about, indent=2) + '\n')
  print(json.dumps(about, indent=2))


def evaluate_set(policy: Policy, folder: epath.Path, count: int, temperature: float) -> None:
  """Lets the policy correct the set's programs; writes what `score_jax.evaluate` writes.

  Args:
    policy: corrects the programs.
    folder: of the set.
    count: programs taken, evenly spread; 0 takes all.
    temperature: 0 is greedy.
  """
  config = policy.config
  checker = task_loader.make_checker(config)
  try:
    task = load_mbpp_r(folder, config.data.path, checker, cache=config.data.cache)
    prompts = _prompts(policy, task, list(task.test), count)
    sampler = _sampler(policy, task, temperature)
    found = repair.evaluate_repair(sampler, prompts, task, forced_answer)
  finally:
    checker.close()
  parent = policy.path if policy.step else os.path.join('runs', 'base')
  target = program.WORKDIR.value or os.path.join(
    parent, f'repair_step{policy.step}_t{temperature:g}'
  )
  about = policy.about(temperature) | {
    'set': str(folder),
    'num_problems': len(found.records),
    'num_left_out': found.num_left_out,
  }
  if not distributed.is_speaker():
    return
  protocol.save_evaluation(target, found, about)
  print(protocol.metrics_table(found.metrics))
  print(f'{len(found.records)} programs, {found.num_left_out} left out; records in {target}')


def _body() -> None:
  run = RUN.value
  if not _SET.value:
    program.fail('--set is not set: the folder of the set of failing programs')
  if run and not epath.Path(run).exists():
    program.fail(f'--run={run} does not exist')
  policy = load_policy(run, WHICH.value)
  is_build = _MODE.value == 'build'
  default = policy.config.rollout.temperature if is_build else policy.config.eval.temperature
  temperature = default if flags.FLAGS.temperature is None else flags.FLAGS.temperature
  action = build if is_build else evaluate_set
  action(policy, epath.Path(_SET.value), flags.FLAGS.num_problems or 0, temperature)


if __name__ == '__main__':
  program.run_program(_body)
