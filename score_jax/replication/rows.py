"""The rows of a replication as data: what each trains, from what, and what is evaluated of it.

A row is data (`configs/replicate_arithmetic.py`, `configs/quickstart.py`); its run directory is
WORKDIR/ROW/seedS, and `row.json` in it, written last, says that it is finished.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from score_jax.core.config_check import check_config
from score_jax.objective.stages import Stage
from score_jax.runs.files import check_writable, read_json
from score_jax.runs.identity import CONFIG_FILE, check_or_write_config

GROUPS = ('method', 'ablation', 'turns', 'sweep', 'regime', 'model', 'part')
# Of held-out problems all but 'train', which is 'greedy' on those that the row is trained on.
EVALUATIONS = ('greedy', 'sampled', 'train', 'fixed', 'turns', 'votes')
# What may change between two starts: a path, and what is shown.
NOT_IDENTITY = ('smollm2_run.model.checkpoint', 'run.train.progress')


@dataclasses.dataclass(frozen=True)
class ReplicationRow:
  """One row.

  Attributes:
    name: of its folder.
    title: its name in tables and figures.
    group: the table it belongs to, one of `GROUPS`; 'model' holds rows of other base models, 'part'
      is trained for other rows only and not reported.
    stage: what it trains with; its name becomes the row's.
    num_steps: updates; 0 trains nothing.
    init: row whose best checkpoint it starts from; '' is the base model.
    schedule: of the learning rate; 'cosine' falls to 0 at the row's end.
    changes: dotted config key -> value, of what differs from the shared run config.
    evaluations: which of `EVALUATIONS`.
    seeds: how many of the seeds are run at most; 0 is all of them.
    paper: key into `paper.MATH` or `paper.THREE_TURNS`; '' if the paper has no such row.
    sweep: the name of the swept quantity, such as 'alpha'; '' outside sweeps.
    value: of the swept quantity, a number or a label.
    not_applicable: why it is not run; '' where it is.
    after: another row that it needs; '' where none.
    run: the part of the config that it shares with others; 'pretrain' makes a base policy in place
      of a run.
  """

  name: str
  title: str
  group: str
  stage: Stage
  num_steps: int = 0
  init: str = ''
  schedule: str = 'cosine'
  changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  evaluations: tuple[str, ...] = ('greedy', 'sampled')
  seeds: int = 0
  paper: str = ''
  sweep: str = ''
  value: float | str = ''
  not_applicable: str = ''
  after: str = ''
  run: str = 'run'

  def __post_init__(self):
    if self.group not in GROUPS:
      raise ValueError(
        f'config.rows: {self.name} has group={self.group!r}, none of {", ".join(GROUPS)}'
      )
    unknown = set(self.evaluations) - set(EVALUATIONS)
    if unknown:
      raise ValueError(
        f'config.rows: {self.name} has unknown evaluations {", ".join(sorted(unknown))}'
      )

  def like(self, name: str, title: str, **more: Any) -> 'ReplicationRow':
    """Another row that differs from this one in what is named.

    Args:
      name: of the other one.
      title: of the other one.
      **more: other attributes; `changes` are added to this row's. Without them the other one is no
        row of the paper, and has the evaluations of any row.
    """
    changes = {**self.changes, **more.pop('changes', {})}
    fresh = {'paper': '', 'evaluations': ReplicationRow.evaluations}
    return dataclasses.replace(self, name=name, title=title, changes=changes, **fresh | more)

  @property
  def makes_base(self) -> bool:
    """Whether it makes a base policy, and not a run."""
    return self.run == 'pretrain'

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
  for row in config.rows:
    if row.name in rows:
      raise ValueError(f'config.rows: {row.name} is there twice')
    for other in row.needs:
      if other not in rows:
        raise ValueError(f'config.rows: {row.name} needs {other}, which is no row above it')
    if not row.makes_base and not config[row.run].model.checkpoint:
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
    told = ', '.join(sorted(unknown))
    raise ValueError(f'--rows={told}: there is none of this name, only {", ".join(rows)}')
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
    A checked run config; for a row that makes a base policy, the config of its pretraining.

  Raises:
    ValueError: for keys that there are none of.
  """
  run = config[row.run].copy_and_resolve_references()
  run.seed = seed
  if not row.makes_base:
    run.stage.update(dataclasses.asdict(row.stage) | {'name': row.name})
    run.train.num_steps = run.optimizer.decay_steps = max(row.num_steps, 1)
    run.optimizer.schedule = row.schedule
    if row.init:
      run.init.path = str(seed_dir(workdir, row.init, seed))
  for key, value in row.changes.items():
    # A row may use what another one made, such as a base model.
    value = value.replace('WORKDIR', str(workdir)) if isinstance(value, str) else value
    *path, last = key.split('.')
    node = run
    for part in path:
      node = node[part]
    if last not in node:
      raise ValueError(f'config.rows: {row.name} changes {key}, and there is no such key')
    node[last] = ConfigDict(value) if isinstance(value, Mapping) else value
  if not row.makes_base:
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
  names = ('num_steps', 'init', 'schedule', 'changes', 'evaluations', 'run')
  stage = dataclasses.asdict(row.stage) | {'name': row.name}
  return {'stage': stage} | {name: _plain(getattr(row, name)) for name in names}


def shared_identity(config: ConfigDict) -> dict:
  """What all rows of a replication config share; its rows may be added to."""
  shared = {k: _plain(v) for k, v in config.items() if k not in ('rows', 'report')}
  return shared | {'checkpoint': 'best'}


def check_workdir(workdir: epath.Path, config: ConfigDict, rows: Sequence[ReplicationRow]) -> None:
  """Makes sure that a work directory belongs to a replication, and writes down to which.

  Args:
    workdir: of the replication.
    config: of `configs/replicate_arithmetic.py`.
    rows: that are to be run; others may be there.

  Raises:
    ValueError: with what differs, where what the rows share or a row itself is another one.
  """
  check_writable(workdir)
  path = workdir / CONFIG_FILE
  # Earlier ones lay otherwise (quickstart) or went on from their latest checkpoint (replicate).
  if path.exists() and 'checkpoint' not in read_json(path, 'choose another --workdir'):
    raise ValueError(
      f'{workdir} was made by an earlier version, whose rows cannot be gone on with: move it away, '
      'or choose another --workdir'
    )
  check_or_write_config(workdir, shared_identity(config), NOT_IDENTITY)
  for row in rows:
    if not row.not_applicable:
      check_or_write_config(workdir / row.name, row_identity(row))
