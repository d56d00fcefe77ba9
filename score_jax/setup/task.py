"""From a config to its task: one table that knows the names of all tasks."""

import importlib
from collections.abc import Callable

from ml_collections import ConfigDict

from score_jax.core.errors import in_words
from score_jax.tasks.arithmetic import load_arithmetic, read_levels
from score_jax.tasks.base import Task, warn_of_repeats, without_overlap
from score_jax.tasks.code.checker import CodeChecker
from score_jax.tasks.gsm8k import load_gsm8k
from score_jax.tasks.humaneval import load_humaneval
from score_jax.tasks.math import load_math
from score_jax.tasks.mbpp import load_mbpp
from score_jax.tasks.sums import load_arithmetic_text


def _arithmetic(config: ConfigDict) -> Task:
  t = config.task
  level_weights = read_levels(t.level_weights, 'config.task.level_weights')
  return load_arithmetic(t.num_train, t.num_test, t.seed, level_weights)


def _sums(config: ConfigDict) -> Task:
  t = config.task
  return load_arithmetic_text(
    low=t.low, high=t.high, num_train=t.num_train, num_test=t.num_test, seed=t.seed
  )


def _answers(load: Callable[..., Task]) -> Callable[[ConfigDict], Task]:
  """A task whose answers the math checker judges."""

  def load_it(config):
    d, g = config.data, config.grader
    return load(
      d.path,
      cache=d.cache,
      num_workers=g.num_workers,
      timeout_s=g.timeout_s,
      refuse_restated=g.refuse_restated,
    )

  return load_it


def _programs(load: Callable[..., Task]) -> Callable[[ConfigDict], Task]:
  """A task whose answers are programs."""
  return lambda config: load(config.data.path, make_checker(config), cache=config.data.cache)


# By config.task.name: how it is loaded, and the file that config.data.path must hold, if any.
TASKS: dict[str, tuple[Callable[[ConfigDict], Task], str]] = {
  'arithmetic': (_arithmetic, ''),
  'sums': (_sums, ''),
  'math': (_answers(load_math), 'math/train.jsonl'),
  'gsm8k': (_answers(load_gsm8k), 'gsm8k/train.jsonl'),
  'mbpp': (_programs(load_mbpp), 'mbpp/mbpp.jsonl'),
  'humaneval': (_programs(load_humaneval), 'humaneval/HumanEval.jsonl.gz'),
}


def make_task(config: ConfigDict) -> Task:
  """Loads or generates the task, without training problems that are evaluation problems too.

  Returns:
    The task; call its `close` at the end.

  Raises:
    ValueError: for an unknown task or broken data.
  """
  name = config.task.name
  if ':' not in name and name not in TASKS:
    raise ValueError(
      f'config.task.name={name!r} is none of {", ".join(TASKS)}, and no module:function of a task '
      'of your own'
    )
  task = _load_own(config) if ':' in name else TASKS[name][0](config)
  if ':' in name or TASKS[name][1]:  # generated problems may well be drawn again
    warn_of_repeats(task)
  return without_overlap(task) if config.data.drop_overlap else task


def make_checker(config: ConfigDict) -> CodeChecker:
  """Makes the checker of programs.

  Returns:
    The checker; call its `close` at the end, or that of its task.

  Raises:
    RuntimeError: this machine cannot confine programs and config.grader.allow_unsandboxed is False.
    ValueError: config.data.cache cannot be written.
  """
  g = config.grader
  checker = CodeChecker(
    g.num_workers,
    g.timeout_s,
    g.memory_bytes,
    allow_unsandboxed=g.allow_unsandboxed,
    cache=config.data.cache,
  )
  # A checker that cannot confine programs refuses to grade: better now than after a rollout.
  checker.grade([])
  return checker


def _load_own(config: ConfigDict) -> Task:
  """Calls the user's own function, named as module:function, with the config."""
  module, _, function = config.task.name.partition(':')
  try:
    load = getattr(importlib.import_module(module), function)
  except (ImportError, AttributeError) as error:
    raise ValueError(
      f'config.task.name={config.task.name!r}: {in_words(error)}; the module must be '
      'importable from here (PYTHONPATH) and hold the function'
    ) from error
  if not callable(load):
    raise ValueError(f'config.task.name={config.task.name!r} names a value, not a function')
  try:
    task = load(config)
  except Exception as error:  # whatever a user's own function may raise
    raise ValueError(
      f'config.task.name={config.task.name!r}: {type(error).__name__}: {in_words(error)}'
    ) from error
  if not isinstance(task, Task):
    raise ValueError(
      f'config.task.name={config.task.name!r} returned a {type(task).__name__}, not a '
      'score_jax.tasks.base.Task'
    )
  return task
