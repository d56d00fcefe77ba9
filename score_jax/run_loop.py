"""What the training loops share: how a run directory is claimed, where a state begins, SIGTERM."""

import functools
import signal
import threading

import jax
import jax.numpy as jnp
from etils import epath

from score_jax.core.config import NOT_IDENTITY
from score_jax.core.types import TrainState
from score_jax.runs.identity import check_or_write_config
from score_jax.setup_run import Setup, content_checksums
from score_jax.trainable import abstract_state, abstract_trainable, first_state


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
    ValueError: if the directory belongs to another run, showing what differs.
  """
  check_or_write_config(
    workdir,
    setup.config.to_dict() | {'content': content_checksums(setup, start)},
    exempt=NOT_IDENTITY,
    is_writer=jax.process_index() == 0,
  )


def fresh_state(setup: Setup, optimizer, start: dict) -> TrainState:
  """The state before the first update, on the devices: a copy, for it is donated, `start` not."""
  wanted = wanted_state(setup, optimizer)

  @functools.partial(jax.jit, out_shardings=jax.tree.map(lambda x: x.sharding, wanted))
  def fresh(start):
    start = jax.tree.map(lambda x: jnp.array(x, jnp.float32), start)
    return first_state(optimizer, start, setup.num_adapted)

  return fresh(start)


def wanted_state(setup: Setup, optimizer) -> TrainState:
  """Shapes and places of a run's training state."""
  trainable = abstract_trainable(setup.base, setup.lora)
  return abstract_state(optimizer, trainable, setup.mesh, setup.num_adapted)
