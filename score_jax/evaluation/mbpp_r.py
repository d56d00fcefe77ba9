"""MBPP-R: a set of a policy's failing programs, and a policy measured by their repair."""

from collections.abc import Callable

from etils import epath

from score_jax.evaluation.evaluate import Evaluation
from score_jax.evaluation.measurement import what_it_depends_on
from score_jax.evaluation.protocol import make_prompts, make_sampler
from score_jax.evaluation.repair import collect_failures, evaluate_repair
from score_jax.setup.policy import Policy
from score_jax.setup.task import make_checker, make_task
from score_jax.tasks.mbpp_r import forced_answer, load_mbpp_r
from score_jax.tasks.programs import find_program

# Task ids of MBPP at which the splits begin; a problem's id is its position in its split.
FIRST_TASK_ID = {'test': 11, 'train': 601}


def build_set(
  policy: Policy,
  split: str,
  num_problems: int,
  num_samples: int,
  num_kept: int,
  temperature: float,
) -> tuple[list[dict], dict]:
  """Samples programs and keeps those that fail.

  Args:
    policy: writes the programs; its config names MBPP.
    split: 'test' or 'train' of MBPP.
    num_problems: problems taken, evenly spread; 0 takes all.
    num_samples: programs sampled for each problem.
    num_kept: most failing programs kept of one problem.
    temperature: of the sampler.

  Returns:
    The records of programs.jsonl, and what was sampled and kept, for about.json.

  Raises:
    ValueError: if there are fewer problems, or no program failed.
  """
  task = make_task(policy.config)
  try:
    prompts = make_prompts(policy, task, num_problems, split)
    sampler = make_sampler(policy, task, temperature)
    found = collect_failures(sampler, prompts, task, num_samples, num_kept)
  finally:
    task.close()
  if not found.kept:
    raise ValueError(f'no program failed, so there is nothing to repair: {found.reasons}')
  records = [
    {
      'task_id': failure.problem.id + FIRST_TASK_ID[split],
      'question': failure.problem.question,
      'tests': failure.problem.answer,
      'program': find_program(failure.problem, failure.text),
      'reason': failure.reason,
    }
    for failure in found.kept
  ]
  about = {
    'split': split,
    'samples': num_samples,
    'keep': num_kept,
    'num_problems': len(prompts.problems),
    'num_problems_failed': len({failure.problem.id for failure in found.kept}),
    'num_programs': len(found.kept),
    'sampled': found.reasons,
  }
  return records, about


def evaluate_set(
  policy: Policy,
  folder: epath.Path,
  num_problems: int,
  temperature: float,
  planned: Callable[[dict], None] = lambda measurement: None,
) -> tuple[Evaluation, dict]:
  """Lets the policy correct the programs of a set, each once.

  Args:
    policy: corrects the programs.
    folder: of the set.
    num_problems: programs taken, evenly spread; 0 takes all.
    temperature: 0 is greedy.
    planned: told what the figures depend on, before anything is sampled.

  Returns:
    As of `score_jax.evaluation.repair.evaluate_repair`, and what the figures depend on.

  Raises:
    ValueError: if the set is missing or broken, or has fewer programs.
  """
  config = policy.config
  checker = make_checker(config)
  try:
    task = load_mbpp_r(folder, config.data.path, checker, cache=config.data.cache)
    prompts = make_prompts(policy, task, num_problems)
    sampler = make_sampler(policy, task, temperature)
    more = {'first_answers': 'the programs of the set'}
    measurement = what_it_depends_on(policy, sampler, prompts, **more)
    planned(measurement)
    return evaluate_repair(sampler, prompts, task, forced_answer), measurement
  finally:
    checker.close()
