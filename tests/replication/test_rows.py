"""Rows as data: which are refused, what run each is, and when a work directory is another's."""

import dataclasses
import json
import re

import numpy as np
import pytest
from etils import epath
from makers import ROOT
from replication_rows import PLAIN

from score_jax.core.config import read_config
from score_jax.replication.rows import (
  NOT_IDENTITY,
  ReplicationRow,
  check_workdir,
  read_rows,
  row_config,
  row_identity,
  with_starts,
)
from score_jax.runs.identity import check_or_write_config
from score_jax.setup import run as setup_run
from score_jax.setup.base_model import EMBEDDED


@pytest.fixture
def config():
  return read_config(f'{ROOT}/configs/replicate_arithmetic.py')


@pytest.fixture
def quickstart():
  return read_config(f'{ROOT}/configs/quickstart.py')


def row(name, **more):
  return ReplicationRow(name, name, more.pop('group', 'method'), PLAIN, **more)


@pytest.mark.parametrize(
  ('more', 'message'),
  [
    (dict(group='other'), "group='other'"),
    (dict(evaluations=('lazy',)), 'unknown evaluations lazy'),
  ],
)
def test_a_row_is_checked(more, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    row('a', **more)


@pytest.mark.parametrize(
  ('rows', 'message'),
  [
    ([row('a'), row('a')], 'a is there twice'),
    ([row('b', init='a'), row('a')], 'b needs a, which is no row above it'),
    ([row('b', evaluations=('fixed',))], 'b needs base'),
  ],
)
def test_rows_are_checked(quickstart, rows, message):
  quickstart.rows = tuple(rows)
  with pytest.raises(ValueError, match=message):
    read_rows(quickstart)


def test_rows_bring_what_they_start_from(config):
  rows = read_rows(config)
  assert with_starts(['three_stage2', 'base'], rows) == [
    *('base', 'three_stage1a', 'three_stage1b', 'three_stage2')
  ]
  assert with_starts(['regime_rare'], rows) == ['mixture_rare', 'regime_rare']
  with pytest.raises(ValueError, match='--rows=scroe: there is none'):
    with_starts(['scroe'], rows)
  assert rows['smollm2'].not_applicable == 'config.smollm2_run.model.checkpoint is not set'
  assert not rows['score'].not_applicable and not rows['mixture_rare'].not_applicable


def test_every_row_of_a_config_is_a_run_that_can_be_made(config, tmp_path):
  for of in read_rows(config).values():
    run = row_config(config, of, 2, epath.Path(tmp_path))
    assert run.seed == 2
    if not of.makes_base:
      assert (run.stage.name, run.init.which) == (of.name, 'best')
      assert run.optimizer.decay_steps == run.train.num_steps == max(of.num_steps, 1)
      assert setup_run.make_stage(run) == dataclasses.replace(of.stage, name=of.name)
      assert run.optimizer.schedule == of.schedule
      assert run.init.path == (f'{tmp_path}/{of.init}/seed2' if of.init else '')
  with pytest.raises(ValueError, match='a changes task.lucky, and there is no such key'):
    row_config(config, row('a', changes={'task.lucky': 7}), 0, epath.Path(tmp_path))


def test_the_size_that_a_row_gives_as_its_reason_is_that_of_the_embedded_policy(config):
  with np.load(EMBEDDED / 'params.npz') as arrays:
    count = sum(array.size for array in arrays.values())
  assert f'a policy of {count:,} parameters ' in read_rows(config)['self_refine'].not_applicable


def test_a_row_of_other_habits_changes_the_pretraining_alone(config, tmp_path):
  rows = read_rows(config)
  before = config.pretrain.to_json()
  learn, habit = row_config(config, rows['mixture_shaky'], 0, epath.Path(tmp_path)).phases
  assert (learn.steps, habit.steps, habit.worked_t2) == (400, 300, 0.012)
  learn, habit = row_config(config, rows['mixture_rare'], 0, epath.Path(tmp_path)).phases
  assert (learn.steps, habit.steps, habit.worked_t2) == (1500, 500, 0.0015)
  assert config.pretrain.to_json() == before
  run = row_config(config, rows['regime_rare'], 0, epath.Path(tmp_path))
  assert run.model.checkpoint == f'{tmp_path}/mixture_rare/seed0'


def test_a_row_that_is_another_is_refused(config, tmp_path):
  rows, workdir = read_rows(config), epath.Path(tmp_path)
  first = rows['base']
  check_or_write_config(workdir / 'a', row_identity(first))
  check_or_write_config(workdir / 'a', row_identity(dataclasses.replace(first, title='other')))
  changes = dict(first.changes) | {'eval.batch': 8}
  for other in (
    dataclasses.replace(first, changes=changes),
    dataclasses.replace(first, schedule='constant'),
    dataclasses.replace(first, num_steps=1),
  ):
    with pytest.raises(ValueError, match='in the run, .* now'):
      check_or_write_config(workdir / 'a', row_identity(other))
  with pytest.raises(ValueError, match='num_steps: 0 in the run, 1 now'):
    check_or_write_config(workdir / 'a', row_identity(dataclasses.replace(first, num_steps=1)))


def test_a_work_directory_belongs_to_what_its_rows_share(config, tmp_path):
  workdir, rows = epath.Path(tmp_path), list(read_rows(config).values())
  check_workdir(workdir, config, rows[:1])
  config.run.train.progress = True
  config.smollm2_run.model.checkpoint = 'elsewhere'
  assert len(NOT_IDENTITY) == 2
  check_workdir(workdir, config, rows)  # more rows
  assert not (workdir / 'self_refine').exists()  # it is not run
  config.run.eval.batch = 8
  with pytest.raises(ValueError, match='run.eval.batch: 2048 in the run, 8 now'):
    check_workdir(workdir, config, rows)


@pytest.mark.parametrize('more', [{'rows': [{'num_steps': 50}]}, {'num_turns': 10}])
def test_a_work_directory_of_other_checkpoints_is_refused(quickstart, tmp_path, more):
  """The quickstart's and the replication's as they lay before, which had no 'checkpoint'."""
  workdir = epath.Path(tmp_path)
  stored = json.dumps({'run': quickstart.run.to_dict()} | more)
  (workdir / 'config.json').write_text(stored)
  with pytest.raises(ValueError, match='made by an earlier version.*choose another --workdir'):
    check_workdir(workdir, quickstart, read_rows(quickstart).values())
  assert (workdir / 'config.json').read_text() == stored
