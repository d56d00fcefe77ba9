"""A log of JSON lines that can be cut off and gone on with exactly where a checkpoint stands.

A log is a row of segments, one file for the steps between two checkpoints:

    metrics-00000000.jsonl   steps 0 .. 10      closed by cut(10)
    metrics-00000011.jsonl   steps 11 .. 20     closed by cut(20)
    metrics-00000021.jsonl   steps 21 ..        open: rewritten whole at each flush

Beside them `metrics.index.json` says how many records each closed segment has, so that one that is
lost or cut off is noticed.

Three rules make a run that was killed leave the same files as one that was not:
  1. `cut(step)` comes *before* the checkpoint of that step is saved, so that a checkpoint that
     exists has all its records on disk.
  2. `rewind(step)` comes when that checkpoint has been restored, before the first new record.
  3. The records of a step are a function of the state at that step (times apart).
"""

import json
import logging
import math
import time
from collections.abc import Mapping
from typing import Any

from etils import epath

from score_jax.runs import files


def segment_paths(directory: epath.PathLike, prefix: str) -> dict[int, epath.Path]:
  """Lists the segments of a log.

  Args:
    directory: the log's folder, local or in a bucket; it need not exist.
    prefix: the log's name, which begins each file's name.

  Returns:
    The path of each segment under the first step that it may hold, in the order of steps.
  """
  directory = epath.Path(directory)
  if not directory.exists():
    return {}
  found = {}
  for path in directory.iterdir():
    first = path.name.removeprefix(f'{prefix}-').removesuffix('.jsonl')
    if path.name == f'{prefix}-{first}.jsonl' and first.isdigit():
      found[int(first)] = path
  return dict(sorted(found.items()))


def read_segment(path: epath.PathLike) -> list[dict[str, Any]]:
  """Reads the records of one segment.

  Args:
    path: a file of JSON lines, each a record with a whole number under "step".

  Returns:
    The records, in the order of the file.

  Raises:
    ValueError: naming file and line, where a line is not such a record.
  """
  records = []
  for number, line in enumerate(epath.Path(path).read_bytes().split(b'\n'), start=1):
    if not line:
      continue
    try:
      record = json.loads(line.decode('utf-8'))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
      raise ValueError(f'{path}:{number}: not a line of JSON: {error}') from error
    if not isinstance(record, dict) or not isinstance(record.get('step'), int):
      raise ValueError(f'{path}:{number}: a record needs a whole number under "step"')
    records.append(record)
  return records


def _index_path(directory: epath.PathLike, prefix: str) -> epath.Path:
  return epath.Path(directory) / f'{prefix}.index.json'


def _segment_path(directory: epath.PathLike, prefix: str, first: int) -> epath.Path:
  return epath.Path(directory) / f'{prefix}-{first:08d}.jsonl'


def _read_index(directory: epath.PathLike, prefix: str) -> dict[int, int]:
  """How many records each closed segment has, by first step; earlier versions wrote none."""
  path = _index_path(directory, prefix)
  advice = 'which segments there were is not known; delete it to read those that are there'
  counts = files.read_json(path, advice) if path.exists() else {}
  try:
    return {int(first): int(n) for first, n in counts.items()}
  except (AttributeError, TypeError, ValueError) as error:
    raise ValueError(f'{path} is damaged (no table of segments): {advice}') from error


def _read_log(
  directory: epath.PathLike, prefix: str, step: float
) -> tuple[dict[int, list[dict[str, Any]]], list[str]]:
  """The records of each segment that begins up to a step, and what is wrong with them."""
  index, found, texts = {}, {}, []
  try:  # before the files are listed: of a log that is written meanwhile, only they are newer
    index = _read_index(directory, prefix)
  except ValueError as error:
    texts.append(str(error))
  paths = segment_paths(directory, prefix)
  for first in sorted(first for first in {*index, *paths} if first <= step):
    path, count = _segment_path(directory, prefix, first), index.get(first, 0)
    if first not in paths:
      records = 'record' if count == 1 else 'records'
      texts.append(f'{path} is missing, with {count} {records} from step {first} on')
      continue
    try:
      found[first] = read_segment(paths[first])
    except ValueError as error:
      texts.append(str(error))
      continue
    if len(found[first]) < count:
      texts.append(f'{path} has {len(found[first])} of {count} records')
  return found, texts


def read_left(directory: epath.PathLike, prefix: str) -> tuple[list[dict[str, Any]], list[str]]:
  """Reads what there is of a log that may have lost segments.

  Args:
    directory: the log's folder, local or in a bucket.
    prefix: the log's name.

  Returns:
    The records as `read_segments` gives them, without the segments that cannot be read; and a text
    with path and numbers for each segment that is missing, cut off or damaged.
  """
  found, texts = _read_log(directory, prefix, math.inf)
  return [record for records in found.values() for record in records], texts


def read_segments(directory: epath.PathLike, prefix: str) -> list[dict[str, Any]]:
  """Reads all records of a log.

  Args:
    directory: the log's folder, local or in a bucket.
    prefix: the log's name.

  Returns:
    The records in the order in which they were appended; [] where there is no log. Numbers that
    were not finite are None.

  Raises:
    ValueError: naming file and line, where a line is broken; naming each segment that is missing
      or cut off. `read_left` reads the others.
  """
  records, texts = read_left(directory, prefix)
  if texts:
    raise ValueError('; '.join(texts))
  return records


class SegmentedLog:
  """Appends records to the open segment, and cuts and rewinds at checkpoints.

  A log belongs to one writer: with several processes, give each its own prefix.

  Example:
    >>> import tempfile
    >>> log = SegmentedLog(tempfile.mkdtemp(), 'metrics')
    >>> log.append({'step': 1, 'loss': 0.5}); log.cut(1); log.append({'step': 2, 'loss': 0.4})
    >>> log.flush(); [r['step'] for r in read_segments(log.directory, 'metrics')]
    [1, 2]
    >>> log.rewind(1); [r['step'] for r in read_segments(log.directory, 'metrics')]
    [1]
  """

  def __init__(self, directory: epath.PathLike, prefix: str, flush_every_s: float = 10.0):
    """Opens a log. Nothing is read or written yet: call `rewind` next, also for a new run.

    Args:
      directory: the log's folder, local or in a bucket.
      prefix: the log's name.
      flush_every_s: `append` flushes when so many seconds have passed since the last flush.
    """
    self.directory = epath.Path(directory)
    self.prefix = prefix
    self._flush_every_s = flush_every_s
    self._index: dict[int, int] = {}
    self._start_segment(0, [])

  def _start_segment(self, first_step: int, pending: list[tuple[int, str]]) -> None:
    self._first_step = first_step
    self._lines = pending  # (step, line) of every record of the open segment
    self._is_flushed = not pending
    self._flushed_at_s = time.monotonic()

  @property
  def open_path(self) -> epath.Path:
    """The open segment's file, which exists from its first flush on."""
    return _segment_path(self.directory, self.prefix, self._first_step)

  def append(self, record: Mapping[str, Any]) -> None:
    """Adds a record; it is on disk after the next flush or cut.

    Args:
      record: a flat or nested dict with a whole number under "step"; NumPy and JAX numbers and
        arrays are welcome; NaN and infinities are written as null.

    Raises:
      ValueError: for a record without step, with one that a closed segment holds, or with a
        value that JSON cannot hold.
    """
    plain = files.to_plain(dict(record))
    step = plain.get('step')
    if not isinstance(step, int) or isinstance(step, bool):
      raise ValueError(f'{self.prefix}: a record needs a whole number under "step", not {step!r}')
    if step < self._first_step:
      raise ValueError(
        f'{self.prefix}: a record of step {step} comes too late, the open segment starts at step'
        f' {self._first_step}: call rewind({step - 1}) before doing that step again'
      )
    self._lines.append((step, files.to_json(plain)))
    self._is_flushed = False
    if time.monotonic() - self._flushed_at_s >= self._flush_every_s:
      self.flush()

  def flush(self) -> None:
    """Writes the open segment whole; does nothing where nothing was added since the last time."""
    if not self._is_flushed:
      files.write_atomic(self.open_path, ''.join(f'{line}\n' for _, line in self._lines))
      self._is_flushed = True
    self._flushed_at_s = time.monotonic()

  def cut(self, step: int) -> None:
    """Closes the open segment after a step; to be called before that step's checkpoint is saved.

    Records of later steps, if there are any yet, go to the next segment. A second cut at the
    same step does nothing.

    Args:
      step: the last step of the segment.

    Raises:
      ValueError: if an earlier cut was at a later step.
    """
    if step < self._first_step - 1:
      raise ValueError(
        f'{self.prefix}: cut({step}) after the log was already cut at {self._first_step - 1}'
      )
    later = [(s, line) for s, line in self._lines if s > step]
    index = dict(self._index)
    if len(later) < len(self._lines):
      self._is_flushed = self._is_flushed and not later
      self._lines = [(s, line) for s, line in self._lines if s <= step]
      self.flush()
      index[self._first_step] = len(self._lines)
    elif later and self.open_path.exists() and step >= self._first_step:
      self.open_path.unlink()  # it was flushed with records of the next segment only
    self._write_index(index)
    self._start_segment(step + 1, later)

  def _write_index(self, index: Mapping[int, int]) -> None:
    path = _index_path(self.directory, self.prefix)
    # One without segments, too: the folder of a log that is gone on with is missed then.
    if index != self._index or not path.exists():
      files.write_atomic(path, files.to_json(index) + '\n')
      self._index = dict(index)

  def rewind(self, step: int) -> None:
    """Forgets every record of a later step, on disk and in memory, and goes on after `step`.

    Doing it twice, or being killed in the middle and doing it again, is the same as once. What is
    missing of the steps before is said in the log, and stays known to be missing.

    Args:
      step: the step of the restored checkpoint; -1 for a run that starts from the beginning.

    Raises:
      ValueError: naming file and line, where the segment to shorten is broken.
    """
    index = self._index_up_to(step)
    paths = segment_paths(self.directory, self.prefix)
    last = max((first for first in paths if first <= step), default=None)
    kept, records = [], []
    if last is not None:  # older segments hold older steps only
      records = read_segment(paths[last])
      kept = [record for record in records if record['step'] <= step]
      index[last] = len(kept) if len(kept) < len(records) else index.get(last, len(kept))
      if records and not kept:
        del index[last]
    # First: what a kill leaves of later segments is no loss then.
    if paths or index != self._index:
      self._write_index(dict(sorted(index.items())))
    for first, path in reversed(paths.items()):
      if first > step or (first == last and records and not kept):
        path.unlink()
    if 0 < len(kept) < len(records):
      lines = ''.join(f'{files.to_json(record)}\n' for record in kept)
      files.write_atomic(paths[last], lines)
    self._start_segment(step + 1, [])

  def _index_up_to(self, step: int) -> dict[int, int]:
    """Reads the index of the steps up to one, and says what is missing of them."""
    logger = logging.getLogger(__name__)
    if step > 0 and not self.directory.exists():
      logger.warning('%s is missing, with the records up to step %d', self.directory, step)
    found, texts = _read_log(self.directory, self.prefix, step)
    for text in texts:
      logger.warning('%s. The run goes on without it', text)
    try:
      self._index = _read_index(self.directory, self.prefix)
    except ValueError:
      _index_path(self.directory, self.prefix).unlink()
    # Segments of earlier versions have no entry.
    index = {first: len(records) for first, records in found.items()} | self._index
    return {first: count for first, count in index.items() if first <= step}
