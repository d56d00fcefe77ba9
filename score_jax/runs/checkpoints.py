"""Checkpoints of a run: saved in the background, checked when read, never half there.

    WORKDIR/checkpoints/20/state/       the arrays, as Orbax writes them
    WORKDIR/checkpoints/20/metadata/    step, reward, the caller's metadata, and of each leaf
                                        shape, dtype and checksum
    WORKDIR/checkpoints/damaged-30/     one that could not be read and was set aside
    WORKDIR/checkpoints/saved.json      reward by step of all that were committed

Orbax writes into a temporary directory and commits it in one move, so a kill during a save leaves
the checkpoints as they were. What was committed can still rot on disk; a checkpoint is therefore
good only if its arrays have the checksums that were taken on the device when it was saved. The
last N are kept, and the best by reward: the one the paper evaluates (highest training reward).
Source: arXiv:2409.12917, settings of Table 5.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from score_jax.core.paths import nest
from score_jax.core.storage import writing
from score_jax.runs import files, restoring, stored
from score_jax.runs import leaves as leaves_lib

Restored = restoring.Restored
restore_subtree = restoring.restore_subtree


_TRASH = 'deleted'


class _LastAndBest:
  """Orbax preservation policy: the last N steps and the one with the highest reward.

  Rewards live in our own checked metadata, not in Orbax's metrics: a damaged file among those
  would keep the manager from opening at all.
  """

  def __init__(self, keep_last: int, rewards: Mapping[int, float | None]):
    self._keep_last = keep_last
    self._rewards = rewards

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    del context
    steps = sorted(info.step for info in checkpoints)
    kept = {*steps[-self._keep_last :], stored.best_step(steps, self._rewards)}
    return [info.step in kept for info in checkpoints]


class Checkpoints:
  """The checkpoints of one run, for the program that writes them.

  One writer per directory. To read those of another run, use `restore_subtree`. With
  several processes, each makes one and calls it alike.

  Example:
    >>> import tempfile, numpy as np
    >>> with Checkpoints(tempfile.mkdtemp()) as checkpoints:
    ...   _ = checkpoints.save(1, {'w': np.ones(2)}, metadata={'epoch': 0}, reward=0.5)
    ...   checkpoints.wait()
    ...   restored = checkpoints.restore({'w': np.zeros(2)})
    >>> restored.step, restored.state['w'].tolist(), restored.metadata
    (1, [1.0, 1.0], {'epoch': 0})
  """

  def __init__(self, directory: epath.PathLike, keep_last: int = 3, async_save: bool = True):
    """Opens a directory of checkpoints and removes what a killed save left behind.

    Args:
      directory: local or in a bucket (`gs://`); made where it does not exist.
      keep_last: how many of the newest are kept, at least 1; the best one is kept besides.
      async_save: whether `save` returns once the state has been copied to the host.

    Raises:
      ValueError: if keep_last is below 1.
    """
    if keep_last < 1:
      raise ValueError(f'keep_last={keep_last} must be at least 1')
    stored.quiet_orbax()
    self._directory = files.absolute(directory)
    self._keep_last = keep_last
    self._async_save = async_save
    self._pending = (0, None)  # the step that is being saved, and its bytes
    self._open()

  def _open(self) -> None:
    self._noted = stored.read_noted(self._directory)
    self._rewards = stored.read_saved(self._directory)
    options = ocp.CheckpointManagerOptions(
      preservation_policy=_LastAndBest(self._keep_last, self._rewards),
      enable_async_checkpointing=self._async_save,
      cleanup_tmp_directories=True,
      lightweight_initialize=True,  # reads nothing that could be damaged
      save_root_metadata=False,
      # A step is renamed before it is deleted, so that a kill in between leaves no half of one.
      todelete_subdir=_TRASH,
    )
    self._empty_trash()
    self._manager = ocp.CheckpointManager(self._directory, options=options)

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *error) -> None:
    self.close()

  def save(self, step: int, state, metadata: Mapping[str, Any], reward: float) -> bool:
    """Saves a state; it is committed some time later, or when `wait` returns.

    The state's buffers may be donated as soon as this returns. Older checkpoints that are
    neither among the last nor the best are removed once this one is committed.

    Args:
      step: the last step that the state has seen, 0 or above.
      state: any pytree of JAX or NumPy arrays.
      metadata: plain values that belong to the state, such as the position in the data.
      reward: what the best checkpoint has most of; one that is not finite is never the best.

    Returns:
      False where a checkpoint of this step exists already; it is left as it is.

    Raises:
      ValueError: naming a leaf or a metadata entry that cannot be saved.
      StorageError: where the disk does not take it, or did not take the *previous* one.
      Exception: whatever else made the previous background save fail.
    """
    self.wait()
    if step in self.all_steps():
      logging.info('A checkpoint of step %d is there already, in %s', step, self._directory)
      return False
    arrays = leaves_lib.named_leaves(state)
    body = stored.make_body(step, arrays, metadata, reward)
    items = ocp.args.Composite(
      # Host arrays are copied: the caller may go on writing into them.
      state=ocp.args.PyTreeSave(
        nest((p, x if isinstance(x, jax.Array) else x.copy()) for p, x in arrays.items())
      ),
      metadata=ocp.args.JsonSave(stored.sealed(body)),
    )
    self._rewards[step] = body['reward']
    with self._writing(step, arrays):
      self._manager.save(step, args=items, force=True)
    return True

  def wait(self) -> None:
    """Waits until the last save is committed; raises what made it fail."""
    with self._writing():
      self._manager.wait_until_finished()
    self._empty_trash()
    self._note(self._noted | {s: self._rewards[s] for s in self.all_steps() if s in self._rewards})

  def _note(self, saved: Mapping[int, float | None]) -> None:
    """Writes down what was committed, after it was: what is missing of it was lost."""
    if saved != self._noted:
      self._noted = dict(saved)
      if jax.process_index() == 0:
        stored.note_saved(self._directory, saved)

  def _empty_trash(self) -> None:
    trash = self._directory / _TRASH
    if trash.exists() and jax.process_index() == 0:
      trash.rmtree()

  def close(self) -> None:
    """Waits for the last save and gives back threads; raises what made the save fail."""
    try:
      self.wait()
    finally:
      with self._writing():
        self._manager.close()

  @contextlib.contextmanager
  def _writing(self, step: int | None = None, arrays: Mapping[str, Any] | None = None):
    """Names the checkpoint under way, where the disk does not take it."""
    if arrays is not None:
      self._pending = (step, sum(x.nbytes for x in arrays.values()))
    step, num_bytes = self._pending
    with writing(self._directory / str(step), num_bytes):
      yield

  def all_steps(self) -> list[int]:
    """Returns the steps of all committed checkpoints, oldest first; a save under way is not one."""
    return stored.committed_steps(self._directory)

  def best_step(self) -> int | None:
    """Returns the committed step with the highest reward (the later of equals), None if none."""
    return stored.best_step(self.all_steps(), self._rewards)

  def oldest_resumable_step(self) -> int | None:
    """Returns the oldest committed step, None if there is none.

    Should all newer ones prove damaged, a resume starts there: what is needed to do the steps
    after it again must be kept until then. It may be the best one, and lie far back.
    """
    return min(self.all_steps(), default=None)

  def restore(self, abstract_state, step: int | None = None) -> Restored | None:
    """Restores the newest good checkpoint, or that of a given step.

    A damaged one is reported, set aside under another name, and the next older one is used.

    Args:
      abstract_state: the state's pytree with, at each leaf, a `jax.ShapeDtypeStruct` with the
        sharding to restore to, a JAX array (its sharding is used) or a NumPy array (restored as
        one). The sharding need not be the one that was saved.
      step: None for the newest good one.

    Returns:
      Step, state and metadata; None if there is no checkpoint at all and no step was named.

    Raises:
      ValueError: if the step has no checkpoint; if none is good, with what was tried; naming
        leaf and both shapes, if the checkpoint is of another tree, shape or dtype.
    """
    self.wait()
    steps = self.all_steps()
    if step is not None and step not in steps:
      raise ValueError(f'{self._directory} has no checkpoint of step {step}, only of {steps}')
    if not steps:
      self._go_on_after(-1)
      return None
    tried = reversed(steps) if step is None else [step]
    restored, damaged = restoring.first_good(self._directory, tried, abstract_state)
    if damaged:
      self._set_aside(damaged)
    if step is None:
      self._go_on_after(restored.step)
    return restored

  def _go_on_after(self, step: int) -> None:
    """Says what is lost, and forgets the steps that are done again."""
    there = self.all_steps()
    best = stored.best_step(self._noted, self._noted)
    for lost in sorted(s for s in self._noted if s not in there and (s == best or s > step)):
      logging.warning(
        'The checkpoint of step %d in %s is missing. The run goes on after step %d.',
        lost,
        self._directory,
        max(step, 0),
      )
    self._note({s: reward for s, reward in self._noted.items() if s <= step})

  def _set_aside(self, damaged: Mapping[int, str]) -> None:
    """Renames damaged checkpoints, so that their steps can be saved again."""
    self._manager.close()
    for step in damaged:
      source = self._directory / str(step)
      target = self._directory / f'damaged-{step}'
      number = 1
      while target.exists():
        number += 1
        target = self._directory / f'damaged-{step}-{number}'
      if jax.process_index() == 0:
        source.rename(target)
      logging.warning('The damaged checkpoint of step %d was moved to %s', step, target)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices('score_jax: damaged checkpoints set aside')
    self._open()
