"""The rows of a replication as data: what each trains, from what, and what is evaluated of it.

A row is data (`configs/replicate_arithmetic.py`); its run directory is WORKDIR/ROW/seedS, and
`row.json` in it, written last, says that it is finished.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from score_jax.core.config_check import check_config
from score_jax.replication.results import ReportRow
from score_jax.runs.files import read_json

GROUPS = ('method', 'ablation', 'turns', 'sweep', 'regime', 'model', 'part')
EVALUATIONS = ('greedy', 'sampled', 'fixed', 'turns', 'votes')


@dataclasses.dataclass(frozen=True)
class ReplicationRow:
  """One row.

  Attributes:
    name: of its folder.
    title: for tables.
    group: one of `GROUPS`; 'part' is trained for other rows only and not reported.
    stage: fields of `score_jax.objective.stages.Stage`; its name becomes the row's.
    num_steps: updates; 0 trains nothing.
    init: row that it starts from; '' is the base model.
    changes: (dotted config key, value) of what differs from the shared run config.
    evaluations: which of `EVALUATIONS`.
    seeds: how many of the seeds are run at most; 0 is all of them.
    paper: the paper's row, for the report; '' where it has none.
    sweep: what is swept; '' where nothing is.
    value: of what is swept.
    not_applicable: why it is not run; '' where it is.
    after: another row that it needs; '' where none.
    run: the part of the config that it shares with others of its model.
    pretrain: habits of a base policy that is made in place of a run (keys of the second phase of
      `configs/pretrain_arithmetic.py`, and `first_steps`, updates of the first); empty for a run.
  """

  name: str
  title: str
  group: str
  stage: Mapping
  num_steps: int
  init: str = ''
  changes: Sequence[tuple[str, Any]] = ()
  evaluations: tuple[str, ...] = ('greedy', 'sampled')
  seeds: int = 0
  paper: str = ''
  sweep: str = ''
  value: float | str = ''
  not_applicable: str = ''
  after: str = ''
  run: str = 'run'
  pretrain: Mapping = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if self.group not in GROUPS:
      raise ValueError(f'config.rows: {self.name} has group={self.group!r}, none of {GROUPS}')
    unknown = set(self.evaluations) - set(EVALUATIONS)
    if unknown:
      raise ValueError(f'config.rows: {self.name} has unknown evaluations {sorted(unknown)}')

  @property
  def needs(self) -> list[str]:
    """Rows that must be finished before it."""
    base = 'base' if 'fixed' in self.evaluations and self.name != 'base' else ''
    return [name for name in (base, self.init, self.after) if name]


def read_rows(config: ConfigDict) -> dict[str, ReplicationRow]:
  """Reads the rows of a replication config.

  Args:
    config: of `configs/replicate_arithmetic.py`.

  Returns:
    Rows by name, each after the one that it starts from.

  Raises:
    ValueError: for names that occur twice, or a start that is no row above.
  """
  rows: dict[str, ReplicationRow] = {}
  for values in config.rows:
    row = ReplicationRow(**{k: _plain(v) for k, v in values.items()})
    if row.name in rows:
      raise ValueError(f'config.rows: {row.name} is there twice')
    for other in row.needs:
      if other not in rows:
        raise ValueError(f'config.rows: {row.name} needs {other}, which is no row above it')
    if not config[row.run].model.checkpoint:
      why = f'config.{row.run}.model.checkpoint is not set'
      row = dataclasses.replace(row, not_applicable=why)
    rows[row.name] = row
  return rows


def _plain(value):
  """Without ConfigDicts, also where they lie in tuples."""
  if isinstance(value, ConfigDict):
    value = value.to_dict()
  if isinstance(value, Mapping):
    return {k: _plain(v) for k, v in value.items()}
  return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def with_starts(names: Sequence[str], rows: Mapping[str, ReplicationRow]) -> list[str]:
  """Adds what the named rows need, in the order of the config.

  Args:
    names: rows that are asked for.
    rows: all rows.

  Returns:
    Names.

  Raises:
    ValueError: for a name that is no row.
  """
  unknown = set(names) - set(rows)
  if unknown:
    raise ValueError(f'--rows: {sorted(unknown)} are none of {sorted(rows)}')
  wanted, waiting = set(), list(names)
  while waiting:
    name = waiting.pop()
    wanted.add(name)
    waiting += rows[name].needs
  return [name for name in rows if name in wanted]


def seed_dir(workdir: epath.Path, row: str, seed: int) -> epath.Path:
  """The run directory of a row's seed."""
  return workdir / row / f'seed{seed}'


def row_config(
  config: ConfigDict, row: ReplicationRow, seed: int, workdir: epath.Path
) -> ConfigDict:
  """Makes the run config of one row and seed.

  Args:
    config: of `configs/replicate_arithmetic.py`.
    row: the row.
    seed: of the run.
    workdir: of the replication.

  Returns:
    A checked run config.

  Raises:
    ValueError: for keys that there are none of.
  """
  run = config[row.run].copy_and_resolve_references()
  run.seed = seed
  run.stage.update(row.stage)
  run.stage.name = row.name
  run.train.num_steps = max(row.num_steps, 1)
  run.train.progress = False
  run.optimizer.decay_steps = run.train.num_steps
  if row.init:
    run.init.path = str(seed_dir(workdir, row.init, seed))
    run.init.which = 'latest'
  for key, value in row.changes:
    # A row may use what another one made, such as a base model.
    value = value.replace('WORKDIR', str(workdir)) if isinstance(value, str) else value
    *path, last = key.split('.')
    node = run
    for part in path:
      node = node[part]
    if last not in node:
      raise ValueError(f'config.rows: {row.name} changes {key}, and there is no such key')
    node[last] = ConfigDict(value) if isinstance(value, Mapping) else value
  check_config(run)
  return run


def finished(workdir: epath.Path, row: str, seeds: Sequence[int]) -> dict[int, dict]:
  """The finished seeds of a row.

  Args:
    workdir: of the replication.
    row: its name.
    seeds: to look for.

  Returns:
    What `row.json` says, by seed.
  """
  paths = {seed: seed_dir(workdir, row, seed) / 'row.json' for seed in seeds}
  return {
    seed: read_json(path, 'delete it, and the row is evaluated again')
    for seed, path in paths.items()
    if path.exists()
  }


def row_identity(row: ReplicationRow) -> dict:
  """What makes a row the one that it is, and not its title: another value is another row."""
  names = ('stage', 'num_steps', 'init', 'changes', 'evaluations', 'run', 'pretrain')
  return {name: getattr(row, name) for name in names}


def shared_identity(config: ConfigDict) -> dict:
  """What all rows of a replication config share; its rows may be added to."""
  return {k: _plain(v) for k, v in config.items() if k not in ('rows', 'report')}


def report_row(row: ReplicationRow) -> ReportRow:
  """What the report needs of a row."""
  names = [field.name for field in dataclasses.fields(ReportRow)]
  return ReportRow(**{name: getattr(row, name) for name in names})
