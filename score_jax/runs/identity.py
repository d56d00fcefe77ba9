"""The identity of a run: which configuration a run directory is of.

A run is its mathematics. Continued with another learning rate it would be neither the old run
nor a new one; continued on another mesh, or for more steps, it is still itself. `config.json`
holds the configuration of the run's latest start, and a later start is held against it.
"""

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from score_jax.runs import files

CONFIG_FILE = 'config.json'
# What a run writes. A directory that holds one of these but no config.json is a run whose
# identity is lost; other files (a scheduler's log, say) are no concern of ours.
RUN_ENTRIES = ('checkpoints', 'metrics', 'episodes', 'verdicts', 'tensorboard')
ABSENT = '(absent)'
_MAX_LINES = 20  # of a difference between two configurations


def flatten_config(config: Mapping[str, Any]) -> dict[str, Any]:
  """Flattens nested dicts into one level of dotted keys; lists stay whole.

  Args:
    config: nested dicts of plain values.

  Returns:
    The values by dotted key, in the order of the config; an empty dict is kept as a value.

  Example:
    >>> flatten_config({'model': {'dim': 8, 'norm': {'eps': 1e-5}}, 'seed': 0})
    {'model.dim': 8, 'model.norm.eps': 1e-05, 'seed': 0}
  """
  flat = {}
  for key, value in config.items():
    if isinstance(value, Mapping) and value:
      flat.update({f'{key}.{inner}': item for inner, item in flatten_config(value).items()})
    else:
      flat[str(key)] = value
  return flat


def is_under(key: str, prefixes: tuple[str, ...]) -> bool:
  """Whether a dotted key is one of `prefixes` or lies under one."""
  return any(key == prefix or key.startswith(f'{prefix}.') for prefix in prefixes)


def config_differences(
  old: Mapping[str, Any], new: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
  """Compares two configurations, as JSON would store them (a tuple equals a list).

  Args:
    old: nested dicts.
    new: nested dicts.

  Returns:
    (old value, new value) by dotted key, sorted, for each key that differs; '(absent)' where one
    of them lacks the key.

  Example:
    >>> config_differences({'a': 1, 'b': {'c': (2, 3)}}, {'a': 2, 'b': {'c': [2, 3]}})
    {'a': (1, 2)}
  """
  old, new = flatten_config(_as_stored(old)), flatten_config(_as_stored(new))
  pairs = {key: (old.get(key, ABSENT), new.get(key, ABSENT)) for key in sorted(old | new)}
  # Compared as text: 1, 1.0 and True are equal in Python and not the same configuration.
  return {key: pair for key, pair in pairs.items() if json.dumps(pair[0]) != json.dumps(pair[1])}


def describe_differences(
  differences: Mapping[str, tuple[Any, Any]], exempt: tuple[str, ...]
) -> str:
  """Says in what two configurations differ, a line for each key; '' where they do not.

  Args:
    differences: from `config_differences`.
    exempt: dotted keys, each with everything under it, that do not count.

  Example:
    >>> describe_differences({'mesh': (1, 2), 'seed': (0, 7)}, exempt=('mesh',))
    '  seed: 0 in the run, 7 now'
  """
  lines = [
    f'  {key}: {_shown(was)} in the run, {_shown(now)} now'
    # Another value says more than a key that one of them lacks.
    for key, (was, now) in sorted(differences.items(), key=lambda item: ABSENT in item[1])
    if not is_under(key, exempt)
  ]
  more = [f'  and {len(lines) - _MAX_LINES} more'] if len(lines) > _MAX_LINES else []
  return '\n'.join(lines[:_MAX_LINES] + more)


def _shown(value: Any) -> str:
  return value if value is ABSENT else repr(value)


def _as_stored(config: Mapping[str, Any]) -> dict[str, Any]:
  return files.to_plain(dict(config), nonfinite=repr)


def run_directory(path: epath.PathLike) -> epath.Path:
  """Returns the run directory that a path lies in; the path itself where no config tells.

  Args:
    path: a run directory, its `checkpoints` directory, or one of its checkpoints.
  """
  path = epath.Path(path)
  # A checkpoint lies two folders below its run's config.
  folders = (path, path.parent, path.parent.parent)
  return next((folder for folder in folders if (folder / CONFIG_FILE).exists()), path)


def read_run_config(run: epath.PathLike) -> dict[str, Any] | None:
  """Reads what a run directory was made with.

  Args:
    run: the run directory, its `checkpoints` directory, or one of its checkpoints.

  Returns:
    The configuration as nested dicts; None where there is none.

  Raises:
    ValueError: if it is damaged.
  """
  path = run_directory(run) / CONFIG_FILE
  return files.read_json(path, 'restore it from a copy') if path.exists() else None


def check_identity(
  workdir: epath.PathLike, config: Mapping[str, Any], exempt: tuple[str, ...] = ()
) -> None:
  """Makes sure that a directory, if it is a run's, is that of a configuration; writes nothing.

  Args:
    workdir: the run directory; it need not exist.
    config: as for `check_or_write_config`.
    exempt: as for `check_or_write_config`.

  Raises:
    ValueError: as `check_or_write_config`.
  """
  _differences(epath.Path(workdir), config, exempt, is_alone=True)


def check_or_write_config(
  workdir: epath.PathLike,
  config: Mapping[str, Any],
  exempt: tuple[str, ...] = (),
  is_writer: bool = True,
) -> dict[str, tuple[Any, Any]]:
  """Makes sure that a run directory belongs to a configuration.

  A new directory gets `config.json`. A directory that has one must agree with it in every key
  that is not exempt; where only exempt keys differ, `config.json` is brought up to date.

  Args:
    workdir: the run directory, local or in a bucket; made where it does not exist.
    config: the configuration as nested dicts (`ConfigDict.to_dict()`).
    exempt: dotted keys, each with everything under it, that may change between starts of one
      run: mesh, hosts, number of steps, how often to log and save, paths.
    is_writer: False on all processes but one: then nothing is written.

  Returns:
    (old value, new value) by dotted key, for the exempt keys that differ from the last start.

  Raises:
    ValueError: showing each other key that differs with both values; if `config.json` is
      damaged; if the directory holds a run but no `config.json`.
  """
  path = epath.Path(workdir) / CONFIG_FILE
  is_new = not path.exists()
  differences = _differences(path.parent, config, exempt, is_alone=is_writer)
  if is_writer and (is_new or differences):
    files.write_atomic(path, json.dumps(_as_stored(config), indent=2, sort_keys=True) + '\n')
  return differences


def _differences(
  workdir: epath.Path, config: Mapping[str, Any], exempt: tuple[str, ...], is_alone: bool
) -> dict[str, tuple[Any, Any]]:
  """The exempt keys that differ; see `check_or_write_config`."""
  path = workdir / CONFIG_FILE
  if not path.exists():
    leftovers = [name for name in RUN_ENTRIES if (workdir / name).exists()]
    if leftovers and is_alone:  # another process may have begun to write just now
      raise ValueError(
        f'workdir={workdir} holds {", ".join(leftovers)} but no {CONFIG_FILE}, and which run they'
        ' are of is unknown: choose another --workdir, or move these away'
      )
    old = None
  else:
    old = files.read_json(path, 'restore it from a copy, or choose another --workdir')
    if not isinstance(old, dict):
      raise ValueError(f'{path} is damaged (not a dict): restore it, or choose another --workdir')
  differences = {} if old is None else config_differences(old, config)
  if lines := describe_differences(differences, exempt):
    raise ValueError(
      f'workdir={workdir} belongs to a run of another configuration:\n{lines}\n'
      'Set these back to go on with that run, or choose another --workdir to start a new one.'
    )
  return differences
