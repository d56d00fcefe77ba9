"""Slices of TPUs: which there are, how their chips are joined, and the first that a run fits."""

import importlib.util
import json

import numpy as np
import pytest

from score_jax.planning import costs
from score_jax.planning import tpu as planner
from score_jax.planning.chips import CHIPS, GIB, Chip, chip_of, ring
from score_jax.planning.hlo import parse


@pytest.mark.parametrize(
  'topology',
  ['v5e:1x1', 'v5e:2x4', 'v6e:4x4', 'v6e:16x16', 'v5p:2x2x1', 'v5p:2x4x4', 'v5p:4x4x4']
  + ['v5p:4x4x8', 'v5p:4x8x12', 'v5p:16x16x24'],
)
def test_slices_that_are_offered(topology):
  assert chip_of(topology) is CHIPS[topology[:3]]


@pytest.mark.parametrize(
  'topology',
  ['v5e:32x32', 'v5e:6x6', 'v5e:1x2', 'v5e:0x4', 'v5e:2X4', 'v5e:4x2', 'v5e:4x4x4', 'v6e:18x2']
  + ['v6e:', 'v6e', 'v5p:1x1x1', 'v5p:2x2x3', 'v5p:2x4x8', 'v5p:8x4x4', 'v5p:04x4x4', 'v5p:4x4x4x4']
  + ['v5p:16x24x24', 'v5p:4x4', 'v5p:4x4x99999999'],
)
def test_slices_that_nobody_offers(topology):
  generation, _, shape = topology.partition(':')
  with pytest.raises(ValueError, match=f'--topology={topology}: no slice of') as error:
    chip_of(topology)
  assert f'{shape!r}; there are {", ".join(CHIPS[generation].shapes)}' in str(error.value)
  assert ('up to 6144 chips' in str(error.value)) == (generation == 'v5p')


def line(size, axis=2):
  """Chips along one axis."""
  return [tuple(i if j == axis else 0 for j in range(3)) for i in range(size)]


def box(*shape):
  return list(np.ndindex(*shape))


@pytest.mark.parametrize(
  ('generation', 'shape', 'group', 'links', 'hops'),
  [
    # Below a cube nothing is closed: to the far corner it is 1 + 1 + 3 hops.
    ('v5p', (2, 2, 4), box(2, 2, 4), 3, 5),
    ('v5p', (2, 4, 4), line(4), 1, 3),
    ('v5p', (4, 4, 4), line(4), 2, 2),
    ('v5p', (4, 4, 4), box(4, 4, 4), 6, 6),
    # Half of a ring is none.
    ('v5p', (4, 4, 8), line(4), 1, 3),
    ('v5p', (4, 4, 8), line(8), 2, 4),
    # Of v5e and v6e each axis by itself; jax gives their chips a third number, 0.
    ('v5e', (8, 16, 1), line(16, axis=1), 2, 8),
    ('v5e', (8, 16, 1), line(8, axis=0), 1, 7),
    ('v6e', (16, 16, 1), line(8, axis=0), 1, 7),
    ('v6e', (4, 4, 1), box(4, 4, 1), 2, 6),
  ],
)
def test_rings(generation, shape, group, links, hops):
  assert ring(CHIPS[generation], shape, group) == (links, hops)


@pytest.mark.parametrize(('shape', 'links'), [((2, 2, 4), 1), ((4, 4, 4), 2)])
def test_messages_know_the_slice_that_they_are_sent_in(shape, links):
  """Four chips in a line gather 8 numbers of each; of a cube they are a ring."""
  others = shape[0] * shape[1]
  gather = (
    f'ROOT %g = f32[32] all-gather(%a), channel_id=1, replica_groups=[{others},4]<=[{others * 4}]'
  )
  entry = f'ENTRY %main (a: f32[8]) -> f32[32] {{\n  %a = f32[8] parameter(0)\n  {gather}\n}}'
  mesh = {'data': 1, 'fsdp': others, 'tensor': 4}
  chip = Chip(GIB, 1.0, 1.0, 1.0, wraps_from=4, shapes=(), max_cube_chips=64)
  found = costs.count(parse(f'HloModule m\n\n{entry}\n'), chip, mesh, box(*shape))
  assert found.collective_seconds == 3 * 8 * 4 / links


# Hosts.


@pytest.mark.parametrize(
  ('topology', 'host'),
  [('v5e:1x1', [1, 1, 1]), ('v5e:2x4', [2, 4, 1]), ('v6e:2x4', [2, 4, 1]), ('v5e:4x4', None)],
)
def test_chips_of_a_host(monkeypatch, topology, host):
  asked = []

  class Described:
    devices = ()

  def describe(*args, **options):
    asked.append((*args, options.get('chips_per_host_bounds')))
    return Described

  monkeypatch.setattr(planner.importlib.util, 'find_spec', lambda name: True)
  monkeypatch.setattr('jax.experimental.topologies.get_topology_desc', describe)
  monkeypatch.setattr(planner, '_ENVIRONMENT', {})
  assert planner.tpu_devices(topology) == []
  assert asked == [(topology, 'tpu', host)]


@pytest.mark.slow
@pytest.mark.parametrize(
  ('topology', 'num_hosts'), [('v5e:1x1', 1), ('v5e:2x4', 1), ('v6e:2x4', 1), ('v5p:2x2x2', 2)]
)
def test_hosts_as_the_compiler_counts_them(topology, num_hosts):
  if importlib.util.find_spec('libtpu') is None:
    pytest.skip("no compiler for TPUs; pip install 'score_jax[plan]'")
  assert len({x.process_index for x in planner.tpu_devices(topology)}) == num_hosts


# The first of several that a run fits.

WRONG_MESH = ValueError('config.mesh=(1, 4, 1) does not fit 1 devices')
TOO_LARGE = ['turn 1 takes 3 GiB']


def tried(monkeypatch, **outcomes):
  """Plans, in place of real ones, for 'v5e:1x1' under the name of x1x1 and so on."""
  made = []

  def make_plan(config, name, topology, instruction_tokens):
    made.append(topology)
    outcome = outcomes[topology.replace('v5e:', 'x')]
    if isinstance(outcome, ValueError):
      raise outcome
    return {'topology': topology, 'faults': outcome}

  monkeypatch.setattr(planner, 'make_plan', make_plan)
  monkeypatch.setattr(planner, 'faults', lambda plan: plan['faults'])
  topologies = [key.replace('x', 'v5e:', 1) for key in outcomes]
  plan, too_small = planner.first_that_fits(None, 'configs/x.py', topologies, 3)
  assert json.loads(json.dumps(too_small)) == too_small
  return plan['topology'], {x['topology']: x['faults'] for x in too_small}, made


def test_a_mesh_that_is_wrong_for_one_slice_may_be_right_for_the_next(monkeypatch, capsys):
  found = tried(monkeypatch, x1x1=WRONG_MESH, x2x2=TOO_LARGE, x4x4=[], x8x8=[])
  too_small = {'v5e:1x1': [str(WRONG_MESH)], 'v5e:2x2': TOO_LARGE}
  assert found == ('v5e:4x4', too_small, ['v5e:1x1', 'v5e:2x2', 'v5e:4x4'])
  assert f'v5e:1x1: this plan cannot run:\n  {WRONG_MESH}\n' in capsys.readouterr().out


def test_a_plan_that_was_made_is_kept_where_the_last_slice_is_wrong(monkeypatch):
  topology, too_small, _ = tried(monkeypatch, x1x1=TOO_LARGE, x2x2=WRONG_MESH)
  assert topology == 'v5e:1x1' and list(too_small) == ['v5e:1x1', 'v5e:2x2']


@pytest.mark.parametrize('shapes', [['x2x2'], ['x1x1', 'x2x2']])
def test_a_run_that_is_wrong_for_every_slice_is_a_wrong_input(monkeypatch, shapes):
  with pytest.raises(ValueError, match='does not fit 1 devices'):
    tried(monkeypatch, **dict.fromkeys(shapes, WRONG_MESH))


def test_every_slice_is_looked_up_before_one_is_planned(monkeypatch):
  monkeypatch.setattr(planner, 'make_plan', lambda *args: pytest.fail('planned'))
  with pytest.raises(ValueError, match="no slice of v5e is '6x6'"):
    planner.first_that_fits(None, 'configs/x.py', ['v5e:2x2', 'v5e:6x6'], 3)
