"""From a config to its task: one place that knows the names of all tasks."""

import importlib

from ml_collections import ConfigDict

from score_jax.tasks.arithmetic import load_arithmetic
from score_jax.tasks.base import Task, without_overlap
from score_jax.tasks.code.checker import CodeChecker
from score_jax.tasks.gsm8k import load_gsm8k
from score_jax.tasks.humaneval import load_humaneval
from score_jax.tasks.math import load_math
from score_jax.tasks.mbpp import load_mbpp
from score_jax.tasks.sums import load_arithmetic_text

# What the folder config.data.path holds for each task that reads files.
DATA_FILES = {
  'math': 'math/train.jsonl',
  'gsm8k': 'gsm8k/train.jsonl',
  'mbpp': 'mbpp/mbpp.jsonl',
  'humaneval': 'humaneval/HumanEval.jsonl.gz',
}


def make_task(config: ConfigDict) -> Task:
  """Loads or generates the task, without training problems that are evaluation problems too.

  Args:
    config: a checked config.

  Returns:
    The task; call its `close` at the end.

  Raises:
    ValueError: for an unknown task or broken data.
  """
  task = _load_task(config)
  return without_overlap(task) if config.data.drop_overlap else task


def make_checker(config: ConfigDict) -> CodeChecker:
  """Makes the checker of programs.

  Args:
    config: a checked config.

  Returns:
    The checker; call its `close` at the end, or that of the task it is given to.

  Raises:
    RuntimeError: this machine cannot confine programs and config.grader.allow_unsandboxed is False.
  """
  g = config.grader
  checker = CodeChecker(
    g.num_workers, g.timeout_s, g.memory_bytes, allow_unsandboxed=g.allow_unsandboxed
  )
  # A checker that cannot confine programs refuses to grade: better now than after a rollout.
  checker.grade([])
  return checker


def _load_task(config: ConfigDict) -> Task:
  t, d, g = config.task, config.data, config.grader
  if t.name == 'arithmetic':
    level_weights = {int(k): float(v) for k, v in t.level_weights.items()}
    if not level_weights:
      raise ValueError('config.task.level_weights is empty: give each number of addends a weight')
    return load_arithmetic(t.num_train, t.num_test, t.seed, level_weights)
  if t.name == 'sums':
    return load_arithmetic_text(
      low=t.low, high=t.high, num_train=t.num_train, num_test=t.num_test, seed=t.seed
    )
  if t.name in ('math', 'gsm8k'):
    load = load_math if t.name == 'math' else load_gsm8k
    return load(d.path, cache=d.cache, num_workers=g.num_workers, timeout_s=g.timeout_s)
  if t.name in ('mbpp', 'humaneval'):
    load = load_mbpp if t.name == 'mbpp' else load_humaneval
    return load(d.path, make_checker(config), cache=d.cache)
  if ':' in t.name:
    return _load_own(config)
  names = ', '.join(['arithmetic', 'sums', *DATA_FILES])
  raise ValueError(
    f'config.task.name={t.name!r} is none of {names}, and no module:function of a task of your own'
  )


def _load_own(config: ConfigDict) -> Task:
  """Calls the user's own function, named as module:function, with the config."""
  module, _, function = config.task.name.partition(':')
  try:
    load = getattr(importlib.import_module(module), function)
  except (ImportError, AttributeError) as error:
    raise ValueError(
      f'config.task.name={config.task.name!r}: {error}; the module must be importable from here '
      '(PYTHONPATH) and hold the function'
    ) from error
  if not callable(load):
    raise ValueError(f'config.task.name={config.task.name!r} names a value, not a function')
  task = load(config)
  if not isinstance(task, Task):
    raise ValueError(
      f'config.task.name={config.task.name!r} returned a {type(task).__name__}, not a '
      'score_jax.tasks.base.Task'
    )
  return task
