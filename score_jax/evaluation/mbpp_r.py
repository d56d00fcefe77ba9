"""MBPP-R: a set of a policy's failing programs, and a policy measured by their repair."""

from etils import epath
from ml_collections import ConfigDict

from score_jax.evaluation.evaluate import Evaluation
from score_jax.evaluation.protocol import make_prompts, make_sampler
from score_jax.evaluation.repair import collect_failures, evaluate_repair
from score_jax.setup.policy import Policy
from score_jax.setup.task import make_checker
from score_jax.tasks.base import Task
from score_jax.tasks.code.extract import extract_program
from score_jax.tasks.mbpp_r import forced_answer, load_mbpp_r

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
      'program': extract_program(failure.text),
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


def evaluate_set(policy: Policy, task: Task, num_problems: int, temperature: float) -> Evaluation:
  """Lets the policy correct the programs of a set, each once.

  Args:
    policy: corrects the programs.
    task: the set, from `load_set`.
    num_problems: programs taken, evenly spread; 0 takes all.
    temperature: 0 is greedy.

  Returns:
    As of `score_jax.evaluation.repair.evaluate_repair`.

  Raises:
    ValueError: if the set has fewer programs.
  """
  prompts = make_prompts(policy, task, num_problems)
  return evaluate_repair(make_sampler(policy, task, temperature), prompts, task, forced_answer)
