"""Numbers of each step: JSON lines to compute with, TensorBoard event files to look at.

    WORKDIR/metrics/metrics-00000011.jsonl                     {"step": 11, "train/loss": 0.5, ...}
    WORKDIR/tensorboard/events.out.tfevents.00000011.score     the same numbers

The JSON lines are the record, up to date to a few seconds. The event files are made from them,
one per segment, when the segment is closed: TensorBoard never goes back to a file that it has
read to the end, so a file must not change under it. It is thus behind by up to one checkpoint.
"""

import time
from collections.abc import Mapping
from typing import Any

from etils import epath

from score_jax.runs import events, files, segments

DIRECTORY = 'metrics'
PREFIX = 'metrics'
TENSORBOARD_DIRECTORY = 'tensorboard'
# When the record was made. As every key under "time/", "device/" and "host/" it may differ between
# a run that was interrupted and one that was not; all other keys may not.
CLOCK_KEY = 'time/unix_s'


def read_metrics(workdir: epath.PathLike) -> list[dict[str, Any]]:
  """Reads the metrics of a run.

  Args:
    workdir: the run directory, local or in a bucket.

  Returns:
    One dict per record, in the order of writing: "step", metric keys, None for NaN or infinity.

  Raises:
    ValueError: naming file and line, where a line is broken.
  """
  return segments.read_segments(epath.Path(workdir) / DIRECTORY, PREFIX)


def _event_file(records: list[dict[str, Any]]) -> bytes:
  """Returns a TensorBoard event file that holds the finite numbers of the records."""
  return events.event_file(
    (
      record.get(CLOCK_KEY, 0.0),
      record['step'],
      {k: v for k, v in record.items() if k not in ('step', CLOCK_KEY) and v is not None},
    )
    for record in records
  )


class MetricsLog:
  """Writes the scalars of each step. See `segments` for what flush, cut and rewind promise."""

  def __init__(self, workdir: epath.PathLike, process_index: int = 0, flush_every_s: float = 10.0):
    """Opens the log; call `rewind` next, also for a new run.

    Args:
      workdir: the run directory, local or in a bucket.
      process_index: this process; only process 0 writes, for all others every call does nothing.
      flush_every_s: records are on disk after at most about so many seconds.
    """
    self._is_writer = process_index == 0
    self._tensorboard = epath.Path(workdir) / TENSORBOARD_DIRECTORY
    self._log = segments.SegmentedLog(epath.Path(workdir) / DIRECTORY, PREFIX, flush_every_s)

  def write(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Adds the numbers of one step.

    Args:
      step: the step they belong to.
      scalars: numbers by key, such as train/kl_t1_nats; Python, NumPy or JAX scalars. Keys that
        depend on the clock begin with "time/", those on the hardware with "device/" or "host/".

    Raises:
      ValueError: for a value that is not one number, naming the key; for a step already closed.
    """
    if not self._is_writer:
      return
    record = {'step': int(step), CLOCK_KEY: time.time(), **files.to_plain(dict(scalars))}
    for key, value in record.items():
      if not isinstance(value, (bool, int, float, type(None))):
        raise ValueError(f'metric {key} of step {step} must be one number, not {value!r}')
    self._log.append(record)

  def flush(self) -> None:
    """Brings the JSON lines on disk up to date."""
    if self._is_writer:
      self._log.flush()

  def cut(self, step: int) -> None:
    """Closes the segment after a step, before that step's checkpoint is saved."""
    if self._is_writer:
      path = self._log.open_path
      self._log.cut(step)
      self._write_events(path)

  def close(self) -> None:
    """Brings JSON lines and TensorBoard up to date at the end of a run."""
    if self._is_writer:
      self._log.flush()
      self._write_events(self._log.open_path)

  def rewind(self, step: int) -> None:
    """Forgets the numbers of later steps; -1 for a run that starts from the beginning."""
    if not self._is_writer:
      return
    # Event files go before their JSON lines: what a kill in between leaves is then found again.
    for first in segments.segment_paths(self._log.directory, PREFIX):
      if first > step:
        self._event_path(first).unlink(missing_ok=True)
    self._log.rewind(step)
    paths = segments.segment_paths(self._log.directory, PREFIX)
    for first, path in paths.items():
      # The last one may have been shortened; an older one lacks its event file only if a kill
      # fell between the two writes.
      if first == max(paths) or not self._event_path(first).exists():
        self._write_events(path)

  def _event_path(self, first_step: int) -> epath.Path:
    return self._tensorboard / f'events.out.tfevents.{first_step:08d}.score'

  def _write_events(self, segment: epath.Path) -> None:
    if segment.exists():
      first_step = int(segment.name.removeprefix(f'{PREFIX}-').removesuffix('.jsonl'))
      files.write_atomic(self._event_path(first_step), _event_file(segments.read_segment(segment)))
