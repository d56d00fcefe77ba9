"""Whether a path is a run, before anything is read of it; and which runs lie in one that is not."""

import os
from collections.abc import Mapping
from typing import Any

from etils import epath

from score_jax.runs import leaves as leaves_lib
from score_jax.runs import stored
from score_jax.runs.files import read_json
from score_jax.runs.identity import CONFIG_FILE, read_run_config

_MAX_LINES = 10  # of a difference between two trees
_DEPTHS = ('*', '*/*')  # of a pipeline's stages and of a row's seeds


def is_run_config(config: Any) -> bool:
  """Whether what a config.json holds is of a run; a replication and a model have one too."""
  return isinstance(config, Mapping) and {'stage', 'rollout'} <= config.keys()


def runs_in(folder: epath.PathLike) -> list[str]:
  """Lists the runs in a folder that have a checkpoint, two folders deep.

  Args:
    folder: of a quickstart, a replication, a pipeline, or of runs.
  """
  found = []
  for depth in _DEPTHS:
    for path in epath.Path(folder).glob(f'{depth}/{CONFIG_FILE}'):
      if stored.committed_steps(path.parent / stored.DIRECTORY) and _is_run(path.parent):
        found.append(os.fspath(path.parent))
  return sorted(found)


def _is_run(folder: epath.Path) -> bool:
  path = folder / CONFIG_FILE
  return path.exists() and is_run_config(read_json(path, 'restore it from a copy'))


def _checkpoints(path: epath.Path) -> list[epath.Path]:
  """The committed checkpoints that a path means, newest first; none where it is no run."""
  if path.name.isdigit() and int(path.name) in stored.committed_steps(path.parent):
    return [path]
  places = (path / stored.DIRECTORY, path)
  return [place / str(step) for place in places for step in stored.committed_steps(place)[::-1]]


def check_run(path: epath.PathLike, flag: str, needs_config: bool = False) -> None:
  """Refuses a path that is no run with a checkpoint, and names those that are near.

  Args:
    path: should be a run directory, its `checkpoints` directory, or a checkpoint in it.
    flag: that names it.
    needs_config: whether the run's config is needed too.

  Raises:
    ValueError: saying what the path is.
  """
  path = epath.Path(path)
  if not path.exists():
    raise ValueError(f'{flag}={path} does not exist')
  if not path.is_dir():
    raise ValueError(f'{flag}={path} is a file: name a run directory')
  has_checkpoint = bool(_checkpoints(path))
  if has_checkpoint and (not needs_config or is_run_config(read_run_config(path))):
    return
  if has_checkpoint:
    why = f'holds checkpoints, but no {CONFIG_FILE} of a run'
  elif _is_run(path):
    why = 'is a run without a checkpoint: none has been saved yet'
  else:
    why = 'is neither a run directory nor a checkpoint of one'
  inside, around = runs_in(path), [x for x in (path.parent, path.parent.parent) if _is_run(x)]
  if inside:
    why += '; these runs lie in it:\n  ' + '\n  '.join(inside)
  elif around:
    why += f'; it lies in the run {around[0]}'
  raise ValueError(f'{flag}={path} {why}')


def check_shapes(path: epath.PathLike, abstract: Any) -> None:
  """Compares what a run trained with what is wanted of it, of which no array is read.

  Args:
    path: as for `check_run`.
    abstract: pytree of shapes, of what was trained.

  Raises:
    ValueError: naming the first leaves that differ, with both shapes.
  """
  wanted = leaves_lib.describe(leaves_lib.named_leaves({'trainable': abstract}))
  for checkpoint in _checkpoints(epath.Path(path)):
    try:
      table = stored.read_body(checkpoint)['leaves']
    except stored.DamagedCheckpointError:
      continue  # whether another one may be taken is said where it is read
    trained = {name: entry for name, entry in table.items() if name.startswith('trainable/')}
    if lines := leaves_lib.differences(trained, wanted):
      more = [f'and {len(lines) - _MAX_LINES} more'] if len(lines) > _MAX_LINES else []
      lines = [f'{path} trained another model than the one of this config:', *lines[:_MAX_LINES]]
      raise ValueError('\n  '.join(lines + more))
    return
