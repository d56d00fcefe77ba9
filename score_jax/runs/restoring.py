"""Reading states back from checkpoints, and noticing when they are not what was saved.

Nothing here writes, so a directory may be read while its run goes on: by an evaluation, or by the
start of the next stage.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from concurrent import futures
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from score_jax.core.paths import Path, nest
from score_jax.runs import files, stored
from score_jax.runs import leaves as leaves_lib

_MAX_LINES = 10  # of a difference between two trees
_MAX_THREADS = 16  # leaves read at the same time: hides the delay of a bucket


@dataclasses.dataclass(frozen=True)
class Restored:
  """What a checkpoint gave back.

  Attributes:
    step: the last step that the state has seen.
    state: the pytree that was asked for.
    metadata: the plain values saved beside it.
  """

  step: int
  state: Any
  metadata: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class RestoredParams:
  """Parameters that a checkpoint gave back.

  Attributes:
    step: the last step that they have seen.
    params: what the run trained, or of it the decoder's parameters.
  """

  step: int
  params: dict


def _restore_args(leaf):
  """Returns the Orbax arguments that restore one leaf as the program wants it."""
  if isinstance(leaf, (np.ndarray, np.generic)):
    return ocp.RestoreArgs(restore_type=np.ndarray)
  sharding = getattr(leaf, 'sharding', None)
  if sharding is None:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return ocp.ArrayRestoreArgs(
    restore_type=jax.Array, sharding=sharding, global_shape=leaf.shape, dtype=leaf.dtype
  )


def _on_each(mine: bool) -> np.ndarray:
  """What is so on each process: bool[processes]."""
  mine = np.asarray(mine)
  return multihost_utils.process_allgather(mine) if jax.process_count() > 1 else mine[None]


def _together(read: Callable[[], Any]) -> Any:
  """Calls `read`, and takes a checkpoint for damaged on every process if it is so on any."""
  result, error = None, None
  try:
    result = read()
  except stored.DamagedCheckpointError as caught:
    error = caught
  failed = _on_each(error is not None)
  if error is None and failed.any():
    where = np.flatnonzero(failed).tolist()
    error = stored.DamagedCheckpointError(f'processes {where} cannot read it')
  if error is not None:
    raise error
  return result


def _read_leaf(checkpoint: epath.Path, path: Path, wanted):
  """Reads one leaf, the part of the tree that consists of it alone."""
  arguments = ocp.args.PyTreeRestore(
    item=nest([(path, wanted)]),
    restore_args=nest([(path, _restore_args(wanted))]),
    partial_restore=True,
  )
  try:
    # The handler itself, without a Checkpointer: no barrier between processes, so that one that
    # fails to read leaves no other one waiting.
    tree = ocp.PyTreeCheckpointHandler().restore(checkpoint / 'state', args=arguments)
    [array] = leaves_lib.named_leaves(tree).values()
  except (MemoryError, jax.errors.JaxRuntimeError):
    raise  # too little memory is no damage
  except Exception as error:  # what a broken file makes Orbax and TensorStore raise is not fixed
    raise stored.DamagedCheckpointError(
      f'leaf "{leaves_lib.leaf_name(path)}": {stored.reason(error)}'
    ) from error
  if isinstance(array, jax.ShapeDtypeStruct):  # given back as it was asked for
    raise stored.DamagedCheckpointError(f'leaf "{leaves_lib.leaf_name(path)}" is missing')
  return array


def _read_leaves(checkpoint: epath.Path, wanted: Mapping[Path, Any]):
  """Reads leaves at the same time, each in a thread and event loop of its own.

  Read in one call, the first broken leaf would leave the reads of all others behind in a closed
  event loop, each of which then prints a stack trace of its own.
  """
  with futures.ThreadPoolExecutor(_MAX_THREADS) as pool:
    arrays = pool.map(lambda item: _read_leaf(checkpoint, *item), wanted.items())
    return dict(zip(wanted, arrays, strict=True))


def read_checkpoint(checkpoint: epath.Path, abstract, prefix: Path = ()) -> Restored:
  """Reads one checkpoint, or a part of it.

  Args:
    checkpoint: its directory.
    abstract: the pytree to restore, as for `Checkpoints.restore`; None for nested dicts of NumPy
      arrays.
    prefix: the path of the subtree that `abstract` describes.

  Raises:
    DamagedCheckpointError: if it is not what was saved; on every process alike.
    ValueError: naming leaf and both shapes, if it is of another tree, shape or dtype.
  """
  body = _together(lambda: stored.read_body(checkpoint))
  start = leaves_lib.leaf_name(prefix + ('',))
  there = {k: v for k, v in body['leaves'].items() if not prefix or k.startswith(start)}
  if not there:
    tops = sorted({name.split('/')[0] for name in body['leaves']})
    raise ValueError(f'the checkpoint {checkpoint} has no subtree "{start[:-1]}", only {tops}')
  if abstract is None:
    abstract = leaves_lib.host_tree(there, len(prefix))
  wanted = {prefix + path: leaf for path, leaf in leaves_lib.named_leaves(abstract).items()}
  lines = leaves_lib.differences(there, leaves_lib.describe(wanted))
  if lines:
    more = [f'and {len(lines) - _MAX_LINES} more'] if len(lines) > _MAX_LINES else []
    raise ValueError(
      f'the checkpoint {checkpoint} is of another model or optimiser than the program:\n  '
      + '\n  '.join(lines[:_MAX_LINES] + more)
    )
  arrays = _together(lambda: _read_leaves(checkpoint, wanted))
  found, sums = leaves_lib.describe(arrays), leaves_lib.checksums(arrays)
  bad = [n for n in there if {**found.get(n, {}), 'checksum': sums.get(n)} != there[n]]
  if bad:
    raise stored.DamagedCheckpointError(f'leaf "{bad[0]}" is not what was saved (checksum)')
  state = jax.tree.unflatten(jax.tree.structure(abstract), [arrays[path] for path in wanted])
  return Restored(step=body['step'], state=state, metadata=body['metadata'])


def first_good(
  directory: epath.PathLike,
  steps: Iterable[int],
  abstract,
  prefix: Path = (),
) -> tuple[Restored, dict[int, str]]:
  """Reads the first checkpoint of several that is good, and tells of those that are not.

  Args:
    directory: a run's `checkpoints` directory.
    steps: steps to try, in order.
    abstract: see `read_checkpoint`.
    prefix: see `read_checkpoint`.

  Returns:
    What was restored, and by step the reason of each damaged one that was passed over.

  Raises:
    ValueError: if none is good, with the reason of each; if one is of another shape.
  """
  damaged = {}
  for step in steps:
    path = epath.Path(directory) / str(step)
    try:
      restored = read_checkpoint(path, abstract, prefix)
    except stored.DamagedCheckpointError as error:
      damaged[step] = str(error)
      continue
    for bad, reason in damaged.items():
      logging.warning(
        'The checkpoint of step %d in %s is damaged (%s). That of step %d is used instead.',
        bad,
        directory,
        reason,
        step,
      )
    return restored, damaged
  reasons = ''.join(f'\n  step {step}: {reason}' for step, reason in damaged.items())
  raise ValueError(
    f'no checkpoint in {directory} can be used, tried:{reasons}\nStart from another checkpoint,'
    ' or with an empty --workdir from the beginning.'
  )


def _locate(path: epath.Path) -> tuple[epath.Path, int | None]:
  """Returns the directory of checkpoints that a path means, and the step if it names one."""
  if not path.exists():
    raise ValueError(f'there is no checkpoint at {path}: no such file or directory')
  if (path / 'state').exists() or (path / 'metadata').exists():
    if not path.name.isdigit():
      raise ValueError(f'{path} is not a committed checkpoint: its name must be its step')
    return path.parent, int(path.name)
  for directory in (path / stored.DIRECTORY, path):
    if stored.committed_steps(directory):
      return directory, None
  raise ValueError(
    f'{path} holds no checkpoint: give a run directory, its "{stored.DIRECTORY}" directory, or'
    ' that of one step in it'
  )


def restore_subtree(
  path: epath.PathLike,
  subtree: str = '',
  abstract=None,
  step: int | Literal['best', 'latest'] = 'best',
) -> Restored:
  """Restores one part of a run's state.

  Args:
    path: a run directory, its `checkpoints` directory, or the directory of one step.
    subtree: path of the part, such as "trainable" or "opt/0/mu"; '' for the whole state.
    abstract: the part's pytree with shapes and shardings, as for `Checkpoints.restore`; None
      for nested dicts of NumPy arrays.
    step: a step, 'latest', or 'best' by reward (the latest where no reward was finite); not
      looked at where the path names a step. No other is taken in its place.

  Returns:
    Step, the part, and the metadata.

  Raises:
    ValueError: if there is no such path, step or subtree; if the checkpoint is damaged or lost,
      with what is damaged and which others are whole; naming leaf and both shapes, if it does not
      fit `abstract`.
  """
  stored.quiet_orbax()
  directory, named = _locate(files.absolute(path))
  prefix = tuple(subtree.split('/')) if subtree else ()
  which = step if named is None else named
  while True:
    steps, found = stored.committed_steps(directory), None
    if which not in ('best', 'latest', *steps):
      raise ValueError(f"{directory} has no checkpoint '{which}', only {steps}, best or latest")
    try:
      found = which
      if which in ('best', 'latest'):
        found = None
        found = _together(lambda: stored.wanted_step(directory, which))
      return read_checkpoint(directory / str(found), abstract, prefix)
    except stored.DamagedCheckpointError as error:
      # A running program may have saved a better one meanwhile, and removed this one.
      if not _on_each(stored.committed_steps(directory) != steps).any():
        raise ValueError(_refusal(directory, which, found, error, abstract, prefix)) from error


def _refusal(
  directory: epath.Path, which: int | str, step: int | None, error, abstract, prefix: Path
) -> str:
  """Says why a checkpoint cannot be used, which others are whole, and how to ask for one."""
  whole = []
  for other in stored.committed_steps(directory):
    try:
      if other != step:
        read_checkpoint(directory / str(other), abstract, prefix)
        whole.append(other)
    except (stored.DamagedCheckpointError, ValueError):
      continue
  kind = f'the {which} checkpoint' if isinstance(which, str) else 'the checkpoint'
  if step is None:
    begin = f'which checkpoint in {directory} is the {which} is not known: {error}'
  elif (directory / str(step)).exists():
    begin = f'{kind} in {directory}, of step {step}, is damaged: {error}'
  else:
    begin = f'{kind} in {directory}, of step {step}, is missing: it was deleted or moved'
  if not whole:
    return f'{begin}.\nNo other one there is whole: restore it from a copy, or train again.'
  rewards = stored.read_rewards(directory)
  told = [f'{s} (reward {rewards[s]:g})' if s in rewards else f'{s}' for s in whole]
  path = directory / str(whole[-1])
  ways = [f'--run={path} or --config.init.path={path}']
  if which == 'best' and whole[-1] == stored.wanted_step(directory, 'latest'):
    ways.append('--which=latest or --config.init.which=latest')
  return (
    f'{begin}.\nWhole: step {", ".join(told)}. Another one is used only where it is asked for: '
    f'restore this one from a copy, or name the other, {"; or ".join(ways)}.'
  )


def restore_params(
  run: epath.PathLike, abstract=None, step: int | Literal['best', 'latest'] = 'best'
) -> RestoredParams:
  """Restores what a run trained; arguments and errors as for `restore_subtree`."""
  restored = restore_subtree(run, 'trainable', abstract, step)
  return RestoredParams(restored.step, restored.state)
