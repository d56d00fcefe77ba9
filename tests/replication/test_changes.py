"""Where training took the share of changed answers, by hand."""

import dataclasses
import math

import pytest
from replication_rows import PLAIN

from score_jax.replication.changes import changed_curves, changed_shares, started_from
from score_jax.replication.results import Result
from score_jax.replication.rows import ReplicationRow


def result(*runs, name='a', init='', num_steps=0):
  """A row with seeds of these shares of changed answers, one number an update."""
  training = {
    seed: [{'step': n, 'train/changed_t12': x} for n, x in enumerate(run, start=1)]
    for seed, run in enumerate(runs)
  }
  row = ReplicationRow(name, name.upper(), 'method', PLAIN, num_steps or len(runs[0]), init)
  return Result(row, {seed: {} for seed in training}, '', '', {}, training, {})


def ends(*runs):
  return tuple(changed_shares(result(*runs)).values())


def test_changed_shares_by_hand():
  assert list(changed_shares(result([0.5]))) == ['changed_first', 'changed_last', 'changed_peak']
  # Of 20 updates a tenth is two. The peak lies across two tenths that would be counted off.
  rises = [0.1, 0.2, 0.3, 0.9, 0.7] + [0.3] * 14 + [0.1]
  assert ends(rises) == pytest.approx((0.1, 0.2, 0.8))
  # Few updates: one is the least tenth.
  assert ends([0.4]) == pytest.approx((0.4, 0.4, 0.4))
  assert ends([0.4, 0.9, 0.1]) == pytest.approx((0.4, 0.1, 0.9))
  # Each seed has its own peak, and the mean is of these.
  assert ends([0.2, 0.8, 0.2], [0.4, 0.2, 0.6]) == pytest.approx((0.3, 0.4, 0.7))
  assert ends([0.3] * 50) == pytest.approx((0.3, 0.3, 0.3))
  assert ends([]) == (None, None, None) == tuple(changed_shares(result([], [])).values())


def test_an_update_without_the_number_is_left_out():
  assert ends([None, 0.25, None, 0.75]) == pytest.approx((0.25, 0.75, 0.75))


def test_rows_are_drawn_after_what_they_start_from():
  base = ReplicationRow('base', 'Base', 'method', PLAIN)
  results = {'base': Result(base, {0: {}}, '', '', {}, {}, {})}
  for name, init, steps in (('one', '', 3), ('two', 'one', 4), ('other', 'one', 2), ('x', 'y', 2)):
    results[name] = result([0.5] * steps, name=name, init=init)
  results['three'] = result([0.1, 0.3], [0.3, 0.1], name='three', init='two')
  rows = {name: found.row for name, found in results.items()}
  assert [row.name for row in started_from(rows['three'], rows)] == ['one', 'two']
  found = changed_curves(results)
  assert {name: (c['steps'], c['start'], c['after']) for name, c in found.items()} == {
    'one': ([1, 2, 3], 0, ''),
    'two': ([4, 5, 6, 7], 3, 'one'),
    'other': ([4, 5], 3, 'one'),
    'x': ([1, 2], 0, ''),  # its start is no row of the report
    'three': ([8, 9], 7, 'two'),
  }
  # A supervised start has no updates of RL, whatever number of steps its row has.
  results['two'] = dataclasses.replace(results['two'], seeds={0: {'updates': 0}, 1: {'updates': 0}})
  assert changed_curves(results)['three']['steps'] == [4, 5]
  band = found['three']['train/changed_t12']
  assert band['mean'] == pytest.approx([0.2, 0.2])
  assert (band['low'], band['high']) == ([0.1, 0.1], [0.3, 0.3])
  assert not any(math.isnan(x) for c in found.values() for x in c['train/changed_t12']['mean'])
