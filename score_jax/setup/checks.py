"""What is checked of a run before its model is loaded, and after."""

import logging

import jax
from etils import epath
from ml_collections import ConfigDict

from score_jax.objective.advantages import check_baseline
from score_jax.objective.loss import check_kl_choice
from score_jax.rollout.order import problem_indices
from score_jax.rollout.text import Prompts
from score_jax.setup.optimizer import make_optimizer
from score_jax.setup.task import TASKS
from score_jax.tasks.base import Task, check_disjoint


def missing_inputs(config: ConfigDict) -> list[str]:
  """Lists every path that the config needs and does not have.

  Returns:
    One line for each: what is missing and the flag that sets it; empty if all is there.
  """
  wanted = [('the base model', 'model.checkpoint', config.model.checkpoint, True)]
  _, file = TASKS.get(config.task.name, (None, ''))
  if file:
    wanted.append((f'the folder with {file}', 'data.path', config.data.path, True))
  wanted.append(('the chat template', 'chat.template', config.chat.template, False))
  required = config.init.required
  wanted.append(('the run of the stage before', 'init.path', config.init.path, required))
  lines = []
  for what, key, path, is_required in wanted:
    flag = f'--config.{key}=PATH'
    is_word = path == {'model.checkpoint': 'embedded', 'data.path': 'download'}.get(key)
    if not path and is_required:
      lines.append(f'{what} is not set: {flag}')
    elif path and not is_word and not epath.Path(path).exists():
      lines.append(f'{what}: there is no {path}; set {flag}')
  return lines


def check_batch(config: ConfigDict, num_parts: int) -> None:
  """Checks that the batch divides.

  Args:
    num_parts: devices that the batch is split over.

  Raises:
    ValueError: with the numbers that do not divide.
  """
  traces = config.supervised.batch
  if config.supervised.method and traces % num_parts:
    raise ValueError(
      f'config.supervised.batch={traces} does not divide by {num_parts} devices; take '
      f'{-(-traces // num_parts) * num_parts}'
    )
  P, G = config.rollout.problems_per_step, config.rollout.samples_per_problem
  parts = config.train.micro_batches
  if min(P, G, parts) < 1:
    raise ValueError(
      f'config.rollout.problems_per_step={P}, config.rollout.samples_per_problem={G} and '
      f'config.train.micro_batches={parts} must be at least 1'
    )
  if P * G % (parts * num_parts):
    fewer = [n for n in range(parts, 0, -1) if P * G % (n * num_parts) == 0]
    what = f'micro_batches={fewer[0]}' if fewer else 'other numbers, or fewer devices'
    raise ValueError(
      f'config.rollout.problems_per_step={P} * samples_per_problem={G} = {P * G} episodes in '
      f'config.train.micro_batches={parts} parts do not divide by {num_parts} devices; take {what}'
    )


def check_update(config: ConfigDict) -> None:
  """Checks what an update is made of: the optimiser, and for RL estimators and temperature.

  Raises:
    ValueError: with what to change.
  """
  make_optimizer(config.optimizer)
  if config.supervised.method:
    return
  check_baseline(config.objective.baseline, config.rollout.samples_per_problem)
  check_kl_choice(config.objective.kl_estimator, config.objective.kl_credit)
  if config.rollout.temperature <= 0:
    raise ValueError(
      f'config.rollout.temperature={config.rollout.temperature} must be above 0 to train'
    )


def check_turns(config: ConfigDict) -> None:
  """Checks that there is a budget for each turn of the stage, and two turns to imitate.

  Raises:
    ValueError: with both numbers.
  """
  turn_tokens, num_turns = tuple(config.rollout.turn_tokens), len(config.stage.reward_weight)
  if num_turns != len(turn_tokens):
    raise ValueError(
      f'config.rollout.turn_tokens={turn_tokens} has {len(turn_tokens)} turns, '
      f'config.stage.reward_weight has {num_turns}'
    )
  if config.supervised.method and num_turns != 2:
    raise ValueError(
      f'config.rollout.turn_tokens={turn_tokens}: traces of config.supervised have two turns, not '
      f'{num_turns}'
    )


def check_problems(config: ConfigDict, num_problems: int) -> None:
  """Checks that there are the problems that a run asks for, and that its processes share them.

  Args:
    num_problems: for training, those that fit.

  Raises:
    ValueError: with both numbers.
  """
  wanted = config.supervised.num_problems
  if config.supervised.method and wanted > num_problems:
    raise ValueError(f'config.supervised.num_problems={wanted}, but there are {num_problems}')
  P, process = config.rollout.problems_per_step, (jax.process_index(), jax.process_count())
  problem_indices(config.seed, 0, P, num_problems, *process)


def check_offload(config: ConfigDict) -> None:
  """Checks that the base model is the reference and nothing else, where it leaves the devices.

  Raises:
    ValueError: naming what else needs it.
  """
  if not config.model.offload_reference:
    return
  others = {
    f'config.lora.rank={config.lora.rank} adapts it': config.lora.rank > 0,
    f'config.rollout.base_turn1_share={config.rollout.base_turn1_share} samples from it': (
      config.rollout.base_turn1_share > 0
    ),
    f'config.stage.reference={config.stage.reference!r} is another model': (
      config.stage.reference != 'base'
    ),
  }
  for why, is_so in others.items():
    if is_so:
      raise ValueError(
        'config.model.offload_reference=True keeps the base model off the devices, but ' + why
      )


def warn_overlap(task: Task) -> None:
  """Says how many evaluation problems are in the training split too."""
  overlap = check_disjoint(task)
  if overlap:
    test, train = overlap[0]
    logging.warning(
      '%d evaluation problems are in the training split too, first test %d = train %d: %.80r',
      len(overlap),
      test.id,
      train.id,
      test.question,
    )


def warn_too_long(prompts: Prompts, split: str, config: ConfigDict) -> None:
  """Says how many problems were left out because their prompt does not fit."""
  if prompts.num_too_long:
    logging.warning(
      '%d %s problems are left out: their prompts take up to %d tokens and '
      'config.rollout.prompt_tokens=%d; %d remain',
      prompts.num_too_long,
      split,
      prompts.longest,
      config.rollout.prompt_tokens,
      len(prompts.problems),
    )
