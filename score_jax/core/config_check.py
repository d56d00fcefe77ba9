"""Which configs are refused: a key that there is not, another type, a number out of its range.

So a misspelt key cannot be silently ignored, nor a sign turn the mathematics round.
"""

import math
import re
from collections.abc import Collection, Iterable
from typing import Any

from ml_collections import ConfigDict

from score_jax.core.config import default_config, leaves

# Ranges of numbers, and of each number where there are several. Others need only be finite, or are
# checked with what they must fit.
RANGES = {
  'at least 1': (
    lambda x: x >= 1,
    (
      'rollout.problems_per_step',
      'rollout.samples_per_problem',
      'rollout.prompt_tokens',
      'rollout.turn_tokens',
      'supervised.iterations',
      'supervised.epochs',
      'supervised.batch',
      'train.num_steps',
      'train.micro_batches',
      'train.chunk_tokens',
      'train.length_bucket',
      'train.checkpoint_every_steps',
      'train.keep_last',
      'train.episodes_every_steps',
      'eval.batch',
      'eval.turn_tokens',
      'eval.feedback_tokens',
      'grader.num_workers',
      'grader.memory_bytes',
      'model.scan_unroll',
    ),
  ),
  'at least 0': (
    lambda x: x >= 0,
    (
      'lora.rank',
      'stage.kl_weight',
      'stage.kl_target_nats',
      'supervised.num_problems',
      'eval.num_problems',
      'eval.temperature',
      'eval.top_k',
      'rollout.slots',
      'rollout.temperature',
      'optimizer.learning_rate',
      'optimizer.decay_steps',
      'optimizer.warmup_steps',
      'optimizer.eps',
      'optimizer.weight_decay',
      'optimizer.clip_norm',
      'train.max_logp_gap_nats',
      'train.num_saved_problems',
      'train.hang_s',
    ),
  ),
  '0 or at least 1': (lambda x: x == 0 or x >= 1, ('objective.importance_cap',)),
  'above 0': (lambda x: x > 0, ('grader.timeout_s', 'lora.alpha')),
  'from 0 to 1': (
    lambda x: 0 <= x <= 1,
    ('rollout.base_turn1_share', 'stage.discount', 'train.random_reward'),
  ),
  'at least 0 and below 1': (lambda x: 0 <= x < 1, ('optimizer.b1', 'optimizer.b2')),
  'above 0 and at most 1': (lambda x: 0 < x <= 1, ('eval.top_p',)),
}
# Words that a value may be.
CHOICES = {
  'init.which': ('best', 'latest'),
  'supervised.method': ('', 'star', 'pair_sft'),
  'eval.protocol': ('self_correct', 'self_refine'),
}


def range_of(key: str) -> str:
  """What range a number has, in words; '' for none.

  Args:
    key: dotted, without 'config.'.

  Example:
    >>> range_of('train.num_steps'), range_of('seed')
    ('at least 1', '')
  """
  return next((words for words, (_, keys) in RANGES.items() if key in keys), '')


def check_config(config: ConfigDict) -> None:
  """Compares a config with the defaults' keys and types.

  Args:
    config: what a config file returned, with the command line's changes.

  Raises:
    ValueError: naming every unknown key, missing key, value of another type and number out of its
      range.
  """
  # These are data: the names of levels of the arithmetic task, and of a template's variables.
  free = ('config.task.level_weights.', 'config.chat.options.')
  expected = dict(leaves(default_config()))
  given = {k: v for k, v in leaves(config) if not k.startswith(free)}
  problems = [f'{k}: no such key' for k in given if k not in expected]
  problems += [f'{k}: missing' for k in _joined(expected.keys() - given, given)]
  for key in expected.keys() & given.keys():
    want, have = expected[key], given[key]
    if not _same_type(want, have):
      problems.append(f'{key}={have!r} is a {_type(have)}, not a {_type(want)}')
    elif words := _out_of_range(key.removeprefix('config.'), have):
      problems.append(f'{key}={have!r} must be {words}')
    elif have not in (choices := CHOICES.get(key.removeprefix('config.'), (have,))):
      words = ' or '.join(map(repr, choices))
      problems.append(f'{key}={have!r} must be {words}')
  if isinstance(given.get('config.profile'), str):
    problems += _profile_problems(given['config.profile'])
  if problems:
    raise ValueError('bad config:\n  ' + '\n  '.join(sorted(problems)))


def _joined(keys: Collection[str], others: Iterable[str]) -> set[str]:
  """Keys, and in place of those of a part that the others have nothing of, the part."""
  parts = {'.'.join(key.split('.')[:2]) for key in others}
  return {part if (part := '.'.join(key.split('.')[:2])) not in parts else key for key in keys}


def _out_of_range(key: str, value: Any) -> str:
  """The range that a number should lie in and does not, in words; '' where all is well."""
  values = value if isinstance(value, tuple | list) else (value,)
  if any(isinstance(x, float) and not math.isfinite(x) for x in values):
    return 'finite'
  words = range_of(key)
  return '' if not words or all(map(RANGES[words][0], values)) else words


def profile_steps(window: str) -> tuple[int, int] | None:
  """Reads `config.profile`.

  Args:
    window: 'START:END', or '' for none.

  Returns:
    The first and the last step to profile, both counted from 1 and included; None for none.

  Raises:
    ValueError: for anything else, saying what is wanted.

  Example:
    >>> profile_steps('3:5')
    (3, 5)
  """
  if problems := _profile_problems(window):
    raise ValueError(problems[0])
  if not window:
    return None
  first, last = map(int, window.split(':'))
  return first, last


def _profile_problems(window: str) -> list[str]:
  is_window = re.fullmatch('[0-9]+:[0-9]+', window)
  first, last = map(int, window.split(':')) if is_window else (0, 0)
  if not window or 1 <= first <= last:
    return []
  return [
    f'config.profile={window!r} is not START:END, the first and the last step to profile, counted '
    "from 1 with START <= END, such as '3:5'"
  ]


def _type(value: Any) -> str:
  """The name of a type; of a tuple with those of its items."""
  if not isinstance(value, tuple | list):
    return type(value).__name__
  # Defaults that are empty stand for numbers.
  return f'tuple of {" and ".join(sorted({type(x).__name__ for x in value or (0.0,)}))}'


def _same_type(want: Any, have: Any) -> bool:
  if isinstance(want, bool) or isinstance(have, bool):
    return isinstance(want, bool) and isinstance(have, bool)
  if isinstance(want, float):
    return isinstance(have, int | float)
  if isinstance(want, tuple):
    # Defaults that are empty stand for numbers.
    item = want[0] if want else 0.0
    return isinstance(have, tuple | list) and all(_same_type(item, x) for x in have)
  return isinstance(have, type(want))
