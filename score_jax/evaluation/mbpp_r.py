"""MBPP-R: a set of a policy's failing programs, and a policy measured by their repair."""

from etils import epath
from ml_collections import ConfigDict

from score_jax.evaluation.evaluate import Evaluation
from score_jax.evaluation.measurement import what_it_depends_on
from score_jax.evaluation.protocol import Planned, make_prompts, make_sampler
from score_jax.evaluation.repair import collect_failures, evaluate_repair
from score_jax.setup.policy import Policy
from score_jax.setup.task import make_checker
from score_jax.tasks.base import Task
from score_jax.tasks.mbpp_r import forced_answer, load_mbpp_r
from score_jax.tasks.programs import find_program

# Task ids of MBPP at which the splits begin; a problem's id is its position in its split.
FIRST_TASK_ID = {'test': 11, 'train': 601}


def load_set(config: ConfigDict, folder: epath.PathLike) -> Task:
  """Loads a set to be repaired.

  Args:
    config: says where MBPP lies, and how programs are run.
    folder: of the set.

  Returns:
    The task; call its `close` at the end.

  Raises:
    ValueError: if the set is missing or broken.
  """
  checker = make_checker(config)
  return load_mbpp_r(folder, config.data.path, checker, cache=config.data.cache)


def build_set(
  policy: Policy,
  task: Task,
  split: str,
  num_problems: int,
  num_samples: int,
  num_kept: int,
  temperature: float,
) -> tuple[list[dict], dict]:
  """Samples programs and keeps those that fail.

  Args:
    policy: writes the programs.
    task: MBPP.
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
  prompts = make_prompts(policy, task, num_problems, split)
  sampler = make_sampler(policy, task, temperature)
  found = collect_failures(sampler, prompts, task, num_samples, num_kept)
  if not found.kept:
    told = ', '.join(f'{count} {reason}' for reason, count in found.reasons.items())
    raise ValueError(f'no program failed, so there is nothing to repair: {told}')
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


def plan_repair(policy: Policy, task: Task, num_problems: int, temperature: float) -> Planned:
  """Says what an evaluation on a set is of.

  Args:
    policy: corrects the programs.
    task: the set, from `load_set`.
    num_problems: programs taken, evenly spread; 0 takes all.
    temperature: 0 is greedy.

  Raises:
    ValueError: if the set has fewer programs.
  """
  prompts = make_prompts(policy, task, num_problems)
  sampler = make_sampler(policy, task, temperature)
  forced = {'first_answers': 'the programs of the set'}
  return Planned(prompts, sampler, None, what_it_depends_on(policy, sampler, prompts, **forced))


def evaluate_set(planned: Planned, task: Task) -> Evaluation:
  """Lets a policy correct the programs of a set, each once.

  Args:
    planned: from `plan_repair`.
    task: the set, from `load_set`.

  Returns:
    As of `score_jax.evaluation.repair.evaluate_repair`.
  """
  return evaluate_repair(planned.sampler, planned.prompts, task, forced_answer)
