"""What lies in a directory of checkpoints: which are committed, which is the best, what each holds.

Beside the arrays of a state stands its *body*: step, reward, the caller's metadata, and a table
with shape, dtype and checksum of each leaf, under a checksum of its own. Beside the checkpoints
stands `saved.json`, the reward by step of every one that was committed: a checkpoint that is lost,
or its body, is known by it.
"""

import json
import logging as standard_logging
import math
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from score_jax.runs import files
from score_jax.runs import leaves as leaves_lib

DIRECTORY = 'checkpoints'
SAVED_FILE = 'saved.json'


class DamagedCheckpointError(Exception):
  """A checkpoint's files are missing, broken, or not what was saved."""


class _OrbaxNoise(standard_logging.Filter):
  """Drops what Orbax tells about its own workings; its warnings pass.

  So do its errors, but for those that it raises as well when it is waited for: a full disk takes
  hundreds of lines.
  """

  def filter(self, record: standard_logging.LogRecord) -> bool:
    if '/orbax/' not in record.pathname:
      return True
    return record.levelno >= standard_logging.WARNING and not record.exc_info


def quiet_orbax() -> None:
  """Keeps Orbax's log lines below WARNING (dozens per save), and tracebacks, out of the output."""
  logger = logging.get_absl_logger()
  if not any(isinstance(present, _OrbaxNoise) for present in logger.filters):
    logger.addFilter(_OrbaxNoise())


def committed_steps(directory: epath.PathLike) -> list[int]:
  """Returns the steps of the committed checkpoints in a directory, oldest first.

  Args:
    directory: a run's `checkpoints` directory; it need not exist.
  """
  directory = epath.Path(directory)
  if not directory.exists():
    return []
  name_format = ocp.path.step.standard_name_format()
  return sorted(found.step for found in name_format.find_all(directory))


def best_step(steps: Iterable[int], rewards: Mapping[int, float | None]) -> int | None:
  """Returns the step with the highest reward, the later one of equals; None if none has one.

  Args:
    steps: steps to choose from.
    rewards: the reward by step; a step without one, or with None, is never the best.

  Example:
    >>> best_step([1, 2, 3, 4], {1: 0.1, 2: 0.7, 3: 0.7})
    3
  """
  rewarded = [(rewards[step], step) for step in steps if rewards.get(step) is not None]
  return max(rewarded)[1] if rewarded else None


def make_body(step: int, arrays, metadata: Mapping[str, Any], reward: float) -> dict[str, Any]:
  """Returns what is written beside a state: step, reward, metadata, and a table of the leaves.

  Args:
    step: the step, 0 or above.
    arrays: the state's leaves by path.
    metadata: plain values.
    reward: becomes None if not finite.

  Raises:
    ValueError: if the step is no whole number of 0 or above, or metadata does not fit JSON.
  """
  if isinstance(step, bool) or not isinstance(step, (int, np.integer)) or step < 0:
    raise ValueError(f'the step of a checkpoint must be a whole number of 0 or above, not {step!r}')
  sums = leaves_lib.checksums(arrays)
  table = leaves_lib.describe(arrays)
  return {
    'step': int(step),
    'reward': float(reward) if math.isfinite(float(reward)) else None,
    'metadata': files.to_plain(dict(metadata)),
    'leaves': {name: {**entry, 'checksum': sums[name]} for name, entry in table.items()},
  }


def sealed(body: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the body with a checksum of its own, as it is written."""
  return {'crc32': _crc32(body), 'body': dict(body)}


def _crc32(body: Mapping[str, Any]) -> int:
  return zlib.crc32(json.dumps(body, sort_keys=True).encode('utf-8'))


def read_body(checkpoint: epath.PathLike) -> dict[str, Any]:
  """Reads what was written beside a state.

  Args:
    checkpoint: the directory of one checkpoint, named by its step.

  Raises:
    DamagedCheckpointError: if it is missing, not what was written, or of another step.
  """
  path = epath.Path(checkpoint) / 'metadata' / 'metadata'
  try:
    content = files.read_json(path, 'another checkpoint has to be used')
  except (FileNotFoundError, ValueError) as error:
    raise DamagedCheckpointError(str(error)) from error
  if not isinstance(content, dict) or content.get('crc32') != _crc32(content.get('body')):
    raise DamagedCheckpointError(f'{path} is damaged (checksum)')
  body, name = content['body'], epath.Path(checkpoint).name
  if str(body['step']) != name:
    raise DamagedCheckpointError(f'{path} is of step {body["step"]}, and its folder of step {name}')
  return body


def read_noted(directory: epath.PathLike) -> dict[int, float | None]:
  """Reads what `saved.json` says: the reward of each step that was ever committed.

  Args:
    directory: a run's `checkpoints` directory; it need not exist.

  Returns:
    Reward by step, None for one that was not finite. Nothing where the file is missing, as in runs
    of earlier versions, or damaged.
  """
  path = epath.Path(directory) / SAVED_FILE
  try:
    return {int(step): reward for step, reward in files.read_json(path, 'it is not used').items()}
  except FileNotFoundError:
    return {}
  except (AttributeError, ValueError) as error:
    logging.warning('%s: a checkpoint that is missing is not noticed (%s)', path, error)
    return {}


def note_saved(directory: epath.PathLike, rewards: Mapping[int, float | None]) -> None:
  """Writes `saved.json`; see `read_noted`."""
  files.write_atomic(epath.Path(directory) / SAVED_FILE, files.to_json(rewards) + '\n')


def read_saved(directory: epath.PathLike) -> dict[int, float | None]:
  """Reads the rewards of all checkpoints that were committed, those that are gone among them.

  Args:
    directory: a run's `checkpoints` directory; it need not exist.

  Returns:
    Reward by step, None for one that was not finite; without the steps whose reward is known
    neither by their own body nor by `saved.json`.
  """
  # First, for a checkpoint that a running program commits meanwhile is then listed below.
  saved = read_noted(directory)
  for step in committed_steps(directory):
    try:
      saved[step] = read_body(epath.Path(directory) / str(step))['reward']
    except DamagedCheckpointError as error:
      logging.warning('The checkpoint of step %d counts as damaged: %s', step, error)
  return saved


def read_rewards(directory: epath.PathLike) -> dict[int, float]:
  """Reads the rewards of the committed checkpoints that are there, where they are known and finite.

  Args:
    directory: a run's `checkpoints` directory; it need not exist.
  """
  saved = read_saved(directory)
  return {s: saved[s] for s in committed_steps(directory) if saved.get(s) is not None}


def wanted_step(directory: epath.PathLike, which: Literal['best', 'latest']) -> int:
  """Returns which step 'best' or 'latest' means, also where its checkpoint is lost since.

  Args:
    directory: a run's `checkpoints` directory that holds at least one.
    which: 'best' by reward, or else 'latest', which the best is, too, if no reward was finite.

  Raises:
    DamagedCheckpointError: if the best is not known, for a checkpoint's reward cannot be read.
  """
  saved = read_saved(directory)
  steps = committed_steps(directory)
  best = None
  if which == 'best':
    unknown = [step for step in steps if step not in saved]
    if unknown:
      raise DamagedCheckpointError(f'step {unknown[-1]}, whose reward is not known, is damaged')
    best = best_step(saved, saved)
  return max({*saved, *steps}) if best is None else best


def reason(error: Exception) -> str:
  """Returns an exception's type and the first line of its message."""
  lines = str(error).strip().splitlines() or ['no message']
  line = lines[0].split(' [tensorstore_spec')[0]  # a page of JSON
  return f'{type(error).__name__}: {line[:400]}'
