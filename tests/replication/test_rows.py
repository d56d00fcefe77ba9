"""Rows as data: which are refused, what run each is, and when a work directory is another's."""

import collections
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
from score_jax.setup.task import make_task
from score_jax.training.pretraining import mixture_of


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
  assert with_starts(['regime_worked_score'], rows) == [
    *('worked_base', 'regime_worked_stage1', 'regime_worked_score')
  ]
  with pytest.raises(ValueError, match='--rows=scroe: there is none'):
    with_starts(['scroe'], rows)
  assert rows['smollm2'].not_applicable == 'config.smollm2_run.model.checkpoint is not set'
  assert not rows['score'].not_applicable and not rows['worked_base'].not_applicable


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
  rows, workdir = read_rows(config), epath.Path(tmp_path)
  before = config.pretrain.to_json()
  worked = read_config(f'{ROOT}/configs/pretrain_worked.py')
  assert row_config(config, rows['worked_base'], 0, workdir).to_json() == worked.to_json()
  found = row_config(config, rows['checks_t1_base'], 0, workdir)
  mixtures = [mixture_of(phase, found) for phase in found.phases]
  shipped = [mixture_of(phase, config.pretrain) for phase in config.pretrain.phases]
  checks = (0.0, 0.85, 0.1)
  assert mixtures == [
    dataclasses.replace(m, checked_t1=share) for m, share in zip(shipped, checks, strict=True)
  ]
  assert (found.first_turn_tokens, found.length) == (15, 36)
  assert config.pretrain.to_json() == before
  run = row_config(config, rows['regime_worked'], 0, workdir)
  assert run.model.checkpoint == f'{tmp_path}/worked_base/seed0'
  assert run.rollout.turn_tokens == (10, 12)


def test_each_row_has_as_many_problems_of_each_level_as_it_asks_for(config, tmp_path):
  runs = {}
  for row in read_rows(config).values():
    if row.run == 'run':
      run = row_config(config, row, 0, epath.Path(tmp_path))
      runs[run.task.to_json()] = run
  assert len(runs) == 3  # the quickstart's, many problems, and sums that are worked out
  for run in runs.values():
    task = make_task(run)
    assert (len(task.train), len(task.test)) == (run.task.num_train, run.task.num_test)
    counts = collections.Counter(problem.level for problem in task.test)
    assert {*counts} == {*run.task.level_weights} and min(counts.values()) >= 200


def test_regimes_and_sweeps_differ_in_what_they_are_named_for(config):
  """Their setting is otherwise the quickstart's, whatever that is."""
  rows = read_rows(config)
  for name, row in rows.items():
    if name.startswith('regime_') and 'worked' not in name:
      like = {'stage1': 'stage1', 'score': 'score'}.get(name.split('_')[-1], 'multiturn_rl')
      if 'no_kl' in name:
        assert row.stage.kl_weight == (rows[like].stage.kl_weight[0] * (like == 'stage1'), 0.0)
      else:
        assert row.stage == rows[like].stage
      assert (row.num_steps, row.schedule) == (rows[like].num_steps, rows[like].schedule)
  assert rows['regime_many'].changes['task.num_train'] == 5000
  values = {name: row.value for name, row in rows.items() if row.sweep in ('alpha', 'beta1')}
  for sweep, own in config.report.sweep_reference.items():
    assert own not in [value for name, value in values.items() if name.startswith(sweep)]


def test_a_row_like_another_has_its_setting_and_changes_besides():
  first = row('a', num_steps=3, changes={'x': 1, 'y': 2}, paper='score', evaluations=('fixed',))
  assert first.like('b', 'B', changes={'y': 3}, num_steps=4) == ReplicationRow(
    *('b', 'B', 'method', PLAIN), num_steps=4, changes={'x': 1, 'y': 3}
  )
  assert first.like('b', 'B', paper='base').paper == 'base'
  assert first.changes == {'x': 1, 'y': 2}


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
