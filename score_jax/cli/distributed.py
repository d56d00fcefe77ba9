"""Several processes as one program: the flag --distributed, and who speaks for all.

Start the same command once on each host. On TPU pods, SLURM, Kubernetes and Open MPI jax finds the
others by itself; elsewhere say it in the environment, here for the first of two processes:

    JAX_COORDINATOR_ADDRESS=host0:1234 JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=0 \
      python -m score_jax.main --distributed --config=...

Every process needs the same inputs and the same work directory: a shared file system or a bucket.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping

import jax
from absl import flags

# When jax itself gives up on a process and aborts all others: after score_jax.runs.watchdog has
# noticed the loss and has said where everyone is.
_HEARTBEAT_TIMEOUT_S = 180
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'Join the other processes of a pod before anything else.'
)


def join() -> None:
  """Joins the other processes if --distributed is set; to be called before any use of a device.

  Raises:
    ValueError: as `numbers_of`.
    RuntimeError: from jax, if the others cannot be found or do not come.
  """
  if _DISTRIBUTED.value:
    # It would take SIGTERM away from whatever sets no handler of its own: a run that is loading, an
    # evaluation.
    jax.config.update('jax_enable_preemption_service', False)
    jax.distributed.initialize(
      **numbers_of(os.environ), heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT_S
    )


def numbers_of(environment: Mapping[str, str]) -> dict[str, int]:
  """Reads how many processes there are, and which one this is.

  Args:
    environment: as `os.environ`; jax itself reads JAX_COORDINATOR_ADDRESS from it.

  Returns:
    Arguments of `jax.distributed.initialize`; empty where jax is to find out by itself.

  Raises:
    ValueError: if only some of the three variables are set, or one is not of its form.

  Example:
    >>> numbers_of(dict(JAX_COORDINATOR_ADDRESS='a:1', JAX_NUM_PROCESSES='2', JAX_PROCESS_ID='1'))
    {'num_processes': 2, 'process_id': 1}
  """
  names = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
  missing = [name for name in names if not environment.get(name)]
  if len(missing) == len(names):
    return {}
  if missing:
    raise ValueError(f'--distributed: {", ".join(missing)} not set; set all of {names} or none')
  address, *values = [environment[name] for name in names]
  if not re.fullmatch('.+:[0-9]+', address):
    raise ValueError(
      f'--distributed: JAX_COORDINATOR_ADDRESS={address!r} is not HOST:PORT, such as localhost:1234'
    )
  if not all(value.isdecimal() for value in values) or int(values[1]) >= int(values[0]):
    raise ValueError(
      f'--distributed: JAX_NUM_PROCESSES={values[0]!r} and JAX_PROCESS_ID={values[1]!r} must be '
      'whole numbers, the second one below the first'
    )
  return {'num_processes': int(values[0]), 'process_id': int(values[1])}


def process_id(environment: Mapping[str, str]) -> int | None:
  """Reads which process this is.

  Args:
    environment: as `os.environ`; SCORE_PROCESS_ID says it, or what `numbers_of` reads.

  Returns:
    Its number; None where jax must be asked.

  Raises:
    ValueError: if SCORE_PROCESS_ID is no number, or as `numbers_of`.

  Example:
    >>> process_id({'SCORE_PROCESS_ID': '3'})
    3
  """
  text = environment.get('SCORE_PROCESS_ID')
  if not text:
    return numbers_of(environment).get('process_id')
  if not re.fullmatch('[0-9]+', text):
    raise ValueError(
      f'--distributed: SCORE_PROCESS_ID={text!r} must be a whole number, 0 for the first process'
    )
  return int(text)


def is_first_process(environment: Mapping[str, str], is_distributed: bool) -> bool:
  """Whether this is the process that does what one does for all.

  Args:
    environment: as `os.environ`, see `process_id`. Where it does not say, jax is asked, in a
      process of its own that must join those of all other hosts: this one leaves the accelerator
      to the steps.
    is_distributed: whether there are others at all.

  Raises:
    ValueError: as `process_id`.
    RuntimeError: if jax cannot find the others.

  Example:
    >>> two = dict(JAX_COORDINATOR_ADDRESS='a:1', JAX_NUM_PROCESSES='2')
    >>> [is_first_process(two | {'JAX_PROCESS_ID': i}, True) for i in '01']
    [True, False]
  """
  if not is_distributed:
    return True
  index = process_id(environment)
  if index is not None:
    return index == 0
  code = 'import jax; jax.distributed.initialize(); print("index", jax.process_index())'
  done = subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
  found = [line for line in done.stdout.splitlines() if line.startswith('index ')]
  if done.returncode or not found:
    raise RuntimeError(f'the processes did not find each other (exit status {done.returncode})')
  return found[-1] == 'index 0'


def is_speaker() -> bool:
  """Whether this process writes and prints what is the same on all of them."""
  return jax.process_index() == 0
