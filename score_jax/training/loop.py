"""What the training loops share: how a run directory is claimed, where a state begins, SIGTERM."""

import dataclasses
import functools
import hashlib
import logging
import secrets
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from score_jax.core.config import NOT_IDENTITY
from score_jax.core.types import TrainState
from score_jax.runs.files import write_atomic
from score_jax.runs.identity import check_or_write_config
from score_jax.setup.run import Setup
from score_jax.setup.trainable import first_state, params_checksum


class Preempted(Exception):
  """SIGTERM came. The state is saved; the same command goes on from there."""


class TrainingStopped(Exception):
  """Going on would be pointless; the message says what was found, at which step, what is saved."""


def run_until_stopped(trainer, mesh: jax.sharding.Mesh) -> TrainState:
  """Runs a training loop that SIGTERM asks to save and end.

  Args:
    trainer: has `run`, `stop`, `close` and a `watchdog`, as `Trainer`.
    mesh: the devices.

  Returns:
    What `trainer.run` returns.
  """
  # Python only lets the main thread have signal handlers; elsewhere SIGTERM is its owner's.
  is_main = threading.current_thread() is threading.main_thread()
  before = signal.signal(signal.SIGTERM, trainer.stop) if is_main else None
  try:
    with trainer.watchdog.watching((Preempted, TrainingStopped)), jax.sharding.set_mesh(mesh):
      return trainer.run()
  finally:
    if is_main:
      signal.signal(signal.SIGTERM, before)
    trainer.close()


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
    Checksums of base parameters, start parameters, sizes, and training problems with their token
    ids (which tell of another tokenizer or chat template).
  """

  def of_text(text):
    return hashlib.blake2s(text.encode(), digest_size=8).hexdigest()

  problems = [(p.id, p.question, p.answer) for p in setup.prompts.problems]
  # How it is computed may change between two starts, what is computed may not.
  sizes = dataclasses.replace(setup.base.decoder.config, dtype='float32', remat='none')
  sizes = dataclasses.replace(sizes, param_dtype='float32', scan_unroll=1, attention='plain')
  base = params_checksum(setup.base.params)
  return {
    'base': base,
    'start': base if start is setup.base.params else params_checksum(start),
    'decoder': of_text(repr(sizes)),
    'problems': of_text(repr((problems, setup.prompts.ids, setup.spec))),
  }


def fresh_state(setup: Setup, optimizer, start: dict) -> TrainState:
  """The state before the first update, on the devices: a copy, for it is donated, `start` not."""
  wanted = setup.abstract_state(optimizer)

  @functools.partial(jax.jit, out_shardings=jax.tree.map(lambda x: x.sharding, wanted))
  def fresh(start):
    start = jax.tree.map(lambda x: jnp.array(x, jnp.float32), start)
    return first_state(optimizer, start, setup.num_adapted)

  return fresh(start)
