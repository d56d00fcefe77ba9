"""What the training loops share: a run directory claimed and gone on with, signals, checkpoints."""

import contextlib
import functools
import logging
import math
import secrets
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from tqdm import tqdm

from score_jax.core import sharding
from score_jax.core.config import NOT_IDENTITY
from score_jax.core.types import TrainState
from score_jax.runs.checkpoints import Checkpoints
from score_jax.runs.files import write_atomic
from score_jax.runs.identity import check_or_write_config
from score_jax.runs.interrupts import interruptible
from score_jax.runs.lock import what_is_kept
from score_jax.runs.metrics import MetricsLog
from score_jax.runs.restoring import Restored
from score_jax.runs.watchdog import Watchdog
from score_jax.setup.optimizer import make_optimizer
from score_jax.setup.run import Setup, input_checksums
from score_jax.setup.trainable import first_state, params_checksum
from score_jax.training.journal import Journal
from score_jax.training.profiling import StepProfile


class Preempted(Exception):
  """SIGTERM or Ctrl-C came. The state is saved; the same command goes on from there.

  Attributes:
    signal_number: which of the two.
  """

  def __init__(self, message: str, signal_number: int = signal.SIGTERM):
    super().__init__(message)
    self.signal_number = signal_number


class TrainingStopped(Exception):
  """Going on would be pointless; the message says what was found, at which step, what is saved."""


@contextlib.contextmanager
def exit_status() -> Iterator[None]:
  """Ends a program whose training was stopped, with a message and not a traceback.

  Raises:
    SystemExit: 143 after SIGTERM, 130 after Ctrl-C, once the state is saved, and 1 where going on
      would be pointless.
  """
  try:
    yield
  except Preempted as error:
    print(error, file=sys.stderr)
    raise SystemExit(128 + error.signal_number) from None
  except TrainingStopped as error:
    print(f'stopped: {error}', file=sys.stderr)
    raise SystemExit(1) from None


class Loop:
  """One run of a training loop: what it keeps on disk, and how it is stopped.

  Attributes:
    setup: of the run.
    workdir: the run directory.
    log: what is written down of each step.
    checkpoints: of the run.
    profile: of the steps that `config.profile` names.
    watchdog: told where the run is.
    stopped_by: the signal that has come to this process, SIGTERM or SIGINT (Ctrl-C); 0 for none.
  """

  def __init__(
    self,
    setup: Setup,
    workdir: epath.Path,
    start: dict,
    log: MetricsLog | Journal,
    num_steps: int | None = None,
  ):
    """Claims the run directory and opens it.

    Args:
      setup: of the run.
      workdir: the run directory, new or of the same run.
      start: from `Setup.read_start`; looked at, not kept.
      log: of the run, of which nothing is read or written yet.
      num_steps: the run's, where it is known.

    Raises:
      ValueError: if the directory belongs to another run, showing what differs.
    """
    claim(workdir, setup, start)
    config = setup.config
    self.setup, self.workdir, self.log = setup, workdir, log
    self.checkpoints = Checkpoints(workdir / 'checkpoints', config.train.keep_last)
    self.profile = StepProfile(config.profile, workdir, num_steps)
    self.watchdog = Watchdog(workdir, config.train.hang_s)
    self.stopped_by = 0

  @contextlib.contextmanager
  def running(self) -> Iterator[None]:
    """Runs a block that SIGTERM or Ctrl-C asks to save and end; closes the run's files after it."""
    # Python only lets the main thread have signal handlers; elsewhere they are its owner's.
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, self.stop) if is_main else None
    ctrl_c = interruptible(
      lambda: self.stop(signal.SIGINT),
      lambda: what_is_kept(self.workdir),
      'Ctrl-C: the step under way is finished and saved first; a second Ctrl-C ends at once',
    )
    try:
      with ctrl_c, contextlib.ExitStack() as closing:
        closing.callback(self.close)
        watching = self.watchdog.watching((Preempted, TrainingStopped))
        with watching, jax.sharding.set_mesh(self.setup.mesh):
          yield
          self.end_if_asked()  # too late for the last step to see it
    finally:
      if is_main:
        signal.signal(signal.SIGTERM, before)

  def stop(self, number: int = signal.SIGTERM, *_) -> None:
    """Asks the loop to save and end after the step it is at; a signal handler."""
    self.stopped_by = number

  def close(self) -> None:
    """Brings the log up to date and waits for the last checkpoint."""
    with contextlib.ExitStack() as closing:  # each of them, whatever becomes of the others
      closing.callback(self.profile.close)
      closing.callback(self.checkpoints.close)
      closing.callback(self.log.close)

  def restore(self) -> Restored | None:
    """Restores the newest good checkpoint, None of a new run; rewinds the log to it."""
    optimizer = make_optimizer(self.setup.config.optimizer)
    restored = self.checkpoints.restore(self.setup.abstract_state(optimizer))
    self.log.rewind(0 if restored is None else restored.step)
    if restored is not None:
      logging.info('%s: going on after step %d', self.workdir, restored.step)
    return restored

  def progress(self, desc: str, done: int, total: int) -> tqdm:
    """A progress bar, on the first process alone."""
    is_shown = self.setup.config.train.progress and jax.process_index() == 0
    return tqdm(total=total, initial=done, desc=desc, disable=not is_shown)

  def agree(self, number: int = 0) -> tuple[int, int]:
    """What all processes must do alike, though each knows only its own part of it.

    Returns:
      The largest of the processes' numbers, and the signal that has come to any of them, which is
      SIGTERM where both have; 0 for none.
    """
    mine = np.asarray([number, self.stopped_by], np.int32)
    if jax.process_count() > 1:
      mine = np.max(multihost_utils.process_allgather(mine), axis=0)
    largest, agreed = mine.tolist()
    if agreed:  # else a signal that came just now would be forgotten
      self.stopped_by = agreed
    return largest, agreed

  def is_due(self, step: int, last: int) -> bool:
    """Whether a checkpoint is on the schedule after a step."""
    return step % self.setup.config.train.checkpoint_every_steps == 0 or step == last

  def save_checkpoint(
    self, step: int, state: TrainState, metadata: Mapping[str, Any], reward: float
  ) -> None:
    """Saves a checkpoint in the background; see `Checkpoints.save`."""
    self.log.cut(step)
    self.checkpoints.save(step, state, metadata=metadata, reward=reward)

  def kept(self) -> str:
    """Says which checkpoint there is to go on from, once the one under way is there."""
    self.checkpoints.wait()
    return what_is_kept(self.workdir)

  def end(self, saved: str = '') -> NoReturn:
    """Ends the loop after a signal, once the last checkpoint, which `saved` names, is there."""
    self.checkpoints.wait()
    kept = f'{saved} is saved in {self.workdir}' if saved else what_is_kept(self.workdir)
    name = 'Ctrl-C' if self.stopped_by == signal.SIGINT else 'SIGTERM'
    raise Preempted(f'stopped by {name}; {kept}', self.stopped_by)

  def end_if_asked(self) -> None:
    """Ends the loop where there is nothing new to save, if a signal has come to any process."""
    if self.agree()[1]:
      self.end()


def fetch(metrics: dict[str, jax.Array]) -> dict[str, float]:
  """Waits for an update and brings its metrics to the host."""
  return {key: float(x) for key, x in jax.device_get(metrics).items()}


def not_finite(loss: float, values: dict[str, float]) -> str:
  """Says what of an update was not finite: what it was made of, or what it left."""
  grad_norm = values['train/grad_norm']
  if math.isfinite(loss) and math.isfinite(grad_norm):
    return (
      'the parameters are not finite after the update, though its loss and gradient were '
      '(config.optimizer.learning_rate too high?). They are not saved'
    )
  return f'loss {loss} or gradient norm {grad_norm} is not finite. The update was not applied'


def claim(workdir: epath.Path, setup: Setup, start: dict) -> None:
  """Makes a run directory this run's, or makes sure that it is.

  To be called last of what can be refused: a config that is refused must not claim a directory.

  Args:
    workdir: the run directory.
    setup: of the run.
    start: from `Setup.read_start`.

  Raises:
    ValueError: if the directory belongs to another run, showing what differs; if the processes do
      not share it.
  """
  if jax.process_count() > 1:
    check_is_shared(workdir)
  check_or_write_config(
    workdir,
    setup.config.to_dict() | {'content': content_checksums(setup, start)},
    exempt=NOT_IDENTITY,
    is_writer=jax.process_index() == 0,
  )


def check_is_shared(workdir: epath.Path) -> None:
  """Checks that all processes see one directory; each writes a part of every checkpoint there.

  Args:
    workdir: the run directory.

  Raises:
    ValueError: on all processes, naming those that do not see what the first one writes.
  """
  # A name that nobody has asked for yet: file systems remember what there was not.
  number = multihost_utils.broadcast_one_to_all(np.int32(secrets.randbelow(2**31)))
  mark = workdir / f'shared_{int(number):010d}'

  def is_done(action) -> bool:
    try:
      return action() is not False
    except OSError as error:  # to be told by all: the others wait here
      logging.error('%s: %s', workdir, error)
      return False

  is_writer = jax.process_index() == 0
  is_written = not is_writer or is_done(lambda: write_atomic(mark, ''))
  multihost_utils.sync_global_devices('written')
  is_seen = is_written and is_done(mark.exists)
  is_seen = multihost_utils.process_allgather(np.asarray(is_seen)).ravel()
  if is_writer:
    is_done(lambda: mark.unlink(missing_ok=True))
  if not is_seen.all():
    raise ValueError(
      f'{workdir} is not one directory for all processes: what process 0 writes there, processes '
      f'{np.flatnonzero(~is_seen).tolist()} do not see. Take a --workdir that all hosts share, '
      'such as one in a bucket, gs://BUCKET/RUN'
    )


def content_checksums(setup: Setup, start: dict) -> dict[str, str]:
  """Names what a run was made from, so that another model or data set at a path is noticed.

  Args:
    setup: from `prepare`.
    start: from `Setup.read_start`.

  Returns:
    Checksums of base parameters, start parameters, and of what `input_checksums` names.
  """
  base = params_checksum(setup.base.params)
  return {
    'base': base,
    'start': base if start is setup.base.params else params_checksum(start),
    **input_checksums(setup.base.decoder.config, setup.prompts, setup.spec),
  }


def fresh_state(setup: Setup, start: dict) -> TrainState:
  """The state before the first update, on the devices: a copy, for it is donated, `start` not."""
  optimizer = make_optimizer(setup.config.optimizer)
  places = jax.tree.map(lambda x: x.sharding, setup.abstract_state(optimizer))

  @functools.partial(jax.jit, out_shardings=places)
  def fresh(start):
    start = jax.tree.map(lambda x: jnp.array(x, jnp.float32), start)
    return first_state(optimizer, start, setup.num_adapted)

  return fresh(sharding.on_devices(start))
