"""From a policy to an evaluation: budgets, problems, how it is sampled, and what is kept."""

import dataclasses
import functools
import json
import math
from collections.abc import Mapping

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from score_jax.evaluation.evaluate import Evaluation, evaluate
from score_jax.evaluation.measurement import what_it_depends_on
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.sampler import Sampler
from score_jax.rollout.text import Prompts, encode_prompts
from score_jax.runs.files import to_json, write_together
from score_jax.runs.watchdog import Watchdog
from score_jax.setup.checks import warn_too_long
from score_jax.setup.policy import Policy
from score_jax.setup.run import make_rollout_spec
from score_jax.tasks.base import Problem, Task
from score_jax.tokenizers.base import Tokenizer

# What Self-Refine says before the feedback and before the second answer. The original prompts it
# with examples of each task; these do without, in the words of the paper's own instruction.
SELF_REFINE = (
  'There might be an error in the solution above because of lack of understanding of the question. '
  'What is the error, if any? Go through the solution step by step and check whether everything '
  'is right. Give only feedback, not a new solution.',
  'Now use this feedback to rewrite the solution. Only output the final solution, in the same form '
  'as before.',
)


def make_spec(config: ConfigDict, task: Task, tokenizer: Tokenizer) -> RolloutSpec:
  """Lays out an episode of evaluation, which may have other turns than one of training.

  Args:
    config: budgets and protocol.
    task: gives the instruction.
    tokenizer: gives its ids and the ends of turn.

  Returns:
    The static shape of an episode.

  Raises:
    ValueError: for an unknown protocol.
  """
  e = config.eval
  turn_tokens = tuple(e.turn_tokens) or tuple(config.rollout.turn_tokens)
  if e.protocol == 'self_refine':
    turn_tokens = (turn_tokens[0], e.feedback_tokens, turn_tokens[-1])
    instructions = SELF_REFINE
  elif e.protocol == 'self_correct':
    instructions = [task.instruction] * (len(turn_tokens) - 1)
  else:
    raise ValueError(
      f"config.eval.protocol={e.protocol!r} is neither 'self_correct' nor 'self_refine'"
    )
  spec = make_rollout_spec(config, instructions, tokenizer, turn_tokens)
  return dataclasses.replace(spec, top_k=e.top_k, top_p=e.top_p)


def check_evaluation(
  config: ConfigDict,
  task: Task,
  tokenizer: Tokenizer,
  temperature: float,
  num_problems: int | None = None,
  split: str = 'test',
) -> RolloutSpec:
  """Refuses an evaluation that could not be made, before its policy's weights are read.

  Args:
    config: budgets and protocol.
    task: has the problems.
    tokenizer: of the base model.
    temperature: 0 is greedy.
    num_problems: as for `evaluate_policy`.
    split: 'test' or 'train'.

  Returns:
    The shape of its episodes.

  Raises:
    ValueError: for a temperature that is none, an unknown protocol, fewer problems, or prompts none
      of which fits.
  """
  if not 0 <= temperature < math.inf:
    raise ValueError(f'--temperature={temperature} must be finite and at least 0')
  spec = make_spec(config, task, tokenizer)
  num_problems = config.eval.num_problems if num_problems is None else num_problems
  problems, limit = choose_problems(task, num_problems, split), config.rollout.prompt_tokens
  if not any(len(tokenizer.prompt_ids(task.prompt(problem))) <= limit for problem in problems):
    encode_prompts(problems, task, tokenizer, limit)  # says how long they are
  return spec


def choose_problems(task: Task, num_problems: int, split: str = 'test') -> list[Problem]:
  """Picks the problems of an evaluation.

  Args:
    task: has the problems.
    num_problems: how many, evenly spread over the split; 0 takes all.
    split: 'test' or 'train'.

  Raises:
    ValueError: if there are fewer problems.
  """
  problems = list(getattr(task, split))
  if num_problems > len(problems):
    raise ValueError(f'num_problems={num_problems}, but the split has {len(problems)}')
  if num_problems:
    problems = [problems[i] for i in np.arange(num_problems) * len(problems) // num_problems]
  return problems


def make_prompts(policy: Policy, task: Task, num_problems: int, split: str = 'test') -> Prompts:
  """Picks and tokenises the problems of an evaluation.

  Args:
    policy: gives the slots of a prompt and the tokenizer.
    task: has the problems.
    num_problems: how many, evenly spread over the split; 0 takes all.
    split: 'test' or 'train'.

  Returns:
    The prompts.

  Raises:
    ValueError: if there are fewer problems.
  """
  config, problems = policy.config, choose_problems(task, num_problems, split)
  prompts = encode_prompts(problems, task, policy.base.tokenizer, config.rollout.prompt_tokens)
  warn_too_long(prompts, 'evaluation', config)
  return prompts


def make_sampler(policy: Policy, task: Task, temperature: float) -> Sampler:
  """Says how a policy is sampled in an evaluation.

  Args:
    policy: what to evaluate.
    task: gives the instruction.
    temperature: 0 is greedy.
  """
  config, base = policy.config, policy.base
  return Sampler(
    base.decoder,
    make_spec(config, task, base.tokenizer),
    policy.params,
    base.tokenizer,
    batch=config.eval.batch,
    temperature=temperature,
    seed=config.seed,
    mesh=policy.mesh,
  )


@dataclasses.dataclass(frozen=True)
class Planned:
  """An evaluation before it is made.

  Attributes:
    prompts: of its problems.
    sampler: of its policy.
    turns: those that hold answers, counted from 0; None takes all.
    measurement: what its figures depend on, see `score_jax.evaluation.measurement`.
  """

  prompts: Prompts
  sampler: Sampler
  turns: tuple[int, ...] | None
  measurement: dict


def plan_evaluation(
  policy: Policy, task: Task, temperature: float | None = None, num_problems: int | None = None
) -> Planned:
  """Says what an evaluation is of; for the arguments and errors see `evaluate_policy`."""
  e = policy.config.eval
  prompts = make_prompts(policy, task, e.num_problems if num_problems is None else num_problems)
  sampler = make_sampler(policy, task, e.temperature if temperature is None else temperature)
  turns = (0, 2) if e.protocol == 'self_refine' else None
  return Planned(prompts, sampler, turns, what_it_depends_on(policy, sampler, prompts))


def evaluate_policy(
  policy: Policy,
  task: Task,
  temperature: float | None = None,
  num_problems: int | None = None,
) -> Evaluation:
  """Evaluates a policy on a task's held-out problems.

  Args:
    policy: what to evaluate; `config.eval` says how.
    task: problems and grader.
    temperature: 0 is greedy; None takes `config.eval.temperature`.
    num_problems: how many, evenly spread over the split; 0 takes all, None
      `config.eval.num_problems`.

  Returns:
    Records and metrics. With the protocol 'self_refine' the two turns are the answers before and
    after the feedback, which the records hold as 'between'.

  Raises:
    ValueError: if there are fewer problems.
  """
  return evaluate_planned(plan_evaluation(policy, task, temperature, num_problems), task)


def evaluate_planned(planned: Planned, task: Task, watchdog: Watchdog | None = None) -> Evaluation:
  """Makes an evaluation.

  Args:
    planned: of `plan_evaluation`.
    task: problems and grader.
    watchdog: watches from the first rollout on.

  Returns:
    As `evaluate_policy`.
  """
  made = functools.partial(evaluate, planned.sampler, planned.prompts, task, turns=planned.turns)
  if watchdog is None:
    return made()
  with watchdog.watching():
    return made(at=watchdog.at)


def metrics_table(metrics: dict[str, dict[str, float]]) -> str:
  """Lays out metrics with their 95% intervals as a Markdown table.

  Args:
    metrics: of an `Evaluation`.

  Returns:
    One row for each metric; a share of some of the problems with how many they are.

  Example:
    >>> none = {'mean': None, 'low': None, 'high': None, 'denominator': 0}
    >>> print(metrics_table({'acc_t1': {'mean': 0, 'low': 0, 'high': 0.3}, 'e_minus': none}))
    | metric | mean | 95% interval |
    |---|---|---|
    | acc_t1 | 0.000 | 0.000 to 0.300 |
    | e_minus | none of 0 |  |
  """
  rows = []
  for key, m in metrics.items():
    of = f' of {m["denominator"]}' if 'denominator' in m else ''
    mean, ends = (
      ('none', '') if m['mean'] is None else (f'{m["mean"]:.3f}', '{low:.3f} to {high:.3f}')
    )
    rows.append(f'| {key} | {mean}{of} | {ends.format(**m)} |')
  return '\n'.join(['| metric | mean | 95% interval |', '|---|---|---|', *rows])


def save_evaluation(
  folder: epath.PathLike, evaluation: Evaluation, measurement: Mapping, about: Mapping
) -> None:
  """Writes records.jsonl and metrics.json, whose presence says that both are whole.

  Args:
    folder: made where it does not exist.
    evaluation: what was found.
    measurement: what its figures depend on.
    about: what else metrics.json tells, such as the commit.
  """
  counts = {'num_problems': len(evaluation.records), 'num_left_out': evaluation.num_left_out}
  found = {**about, **counts, 'measurement': measurement, **evaluation.metrics}
  lines = ''.join(to_json(record) + '\n' for record in evaluation.records)
  write_together(
    folder, {'records.jsonl': lines, 'metrics.json': json.dumps(found, indent=2) + '\n'}
  )
