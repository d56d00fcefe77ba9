"""A run compiled for TPUs that are not there: hosts, slices, work by hand, arrays left whole."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as P
from makers import TESTS

from score_jax.core import sharding
from score_jax.core.config import default_config
from score_jax.model import presets
from score_jax.model.decoder_config import DecoderConfig
from score_jax.planning import shapes
from score_jax.planning import tpu as planner
from score_jax.planning.report import faults

AXES = ('data', 'fsdp', 'tensor')


def test_model_flops_by_hand(monkeypatch):
  sizes = DecoderConfig(
    vocab_size=10, num_layers=2, embed_dim=4, mlp_dim=6, num_heads=2, num_kv_heads=1, head_dim=4
  )
  monkeypatch.setitem(presets.PRESETS, 'tiny', sizes)
  config = default_config()
  config.model.preset = 'tiny'
  config.rollout.update(problems_per_step=5, samples_per_problem=2, prompt_tokens=3)
  config.rollout.turn_tokens = (2, 2)
  mesh = AbstractMesh((1, 1, 1), AXES)
  found = planner.model_flops(shapes.planned_run(config, mesh, 1))
  # 3 + 2 + 1 + 1 + 2 = 9 slots. A layer: q and o 4 x 8 each, k and v 4 x 4 each, three of 4 x 6.
  weights, head, pair = 2 * (2 * 32 + 2 * 16 + 3 * 24), 40, 4 * 2 * 8
  pairs_of_9, pairs_of_3 = 45, 6
  once = 5 * (3 * 2 * weights + pair * pairs_of_3)  # each problem's prompt
  whole = 10 * (9 * 2 * weights + pair * pairs_of_9 + 4 * 2 * head)
  assert found['rollout'] == whole - once
  assert found['update'] == 4 * whole


@pytest.mark.parametrize(
  ('topology', 'problems', 'message'),
  [
    ('v5e:1x1', 1, 'parameters, optimiser and reference alone take 38.9'),
    ('v5p:2x2x1', 512, 'a rollout takes at least'),
  ],
)
def test_a_plan_that_needs_no_compiler_to_be_refused(monkeypatch, topology, problems, message):
  monkeypatch.setattr(planner, 'tpu_devices', lambda topology: jax.devices()[:1])
  monkeypatch.setattr(planner.importlib.metadata, 'version', lambda name: '1')
  config = default_config()
  config.model.preset = 'gemma2_2b'
  config.rollout.problems_per_step = problems
  config.rollout.turn_tokens = (1024, 1024)
  plan = planner.make_plan(config, 'configs/x.py', topology, 3)
  (fault,) = faults(plan)
  assert message in fault and topology in fault
  assert plan['programs'] == {}
  assert plan['rollout_at_least_bytes'] > sum(plan['kept_bytes'].values())
  kept = json.loads((TESTS / 'plans/smollm2_135m.json').read_text())
  assert plan.keys() == kept.keys() - {'too_small'}


def test_without_the_compiler_the_command_says_what_to_install(monkeypatch):
  monkeypatch.setattr(planner.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match=r"pip install 'score_jax\[plan\]'"):
    planner.tpu_devices('v5p:2x2x1')


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
TOO_LARGE = ['decode takes 3 GiB']


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


# Arrays that lie whole along an axis, by accident or on purpose.


def test_a_large_array_that_an_axis_does_not_split_is_found():
  mesh = AbstractMesh((2, 2, 2), AXES)

  def array(rows, *spec, columns=1024):
    place = NamedSharding(mesh, P(*spec))
    return jax.ShapeDtypeStruct((rows, columns), jnp.float32, sharding=place)

  tree = {
    'split': array(4096, 'fsdp', 'tensor'),
    'split_twice': array(4096, ('tensor', 'fsdp')),
    'half': array(4096, 'tensor'),
    'whole': array(4096),
    'small': array(256),
    'odd': array(262145, columns=3),
    'norm': {'scale': array(4096)},
    'q_bias': array(4096),
    'q_a': array(4096),
    'q_b': array(4096),
  }
  found = planner.whole_arrays({'state': tree}, mesh.shape)
  assert found == [
    {'name': 'state/half', 'bytes': 2**23, 'axes': ['fsdp']},
    {'name': 'state/whole', 'bytes': 2**24, 'axes': ['fsdp', 'tensor']},
  ]
  # Where there is only data parallelism, every chip has the whole model on purpose.
  assert planner.whole_arrays(tree, {'data': 4, 'fsdp': 1, 'tensor': 1}) == []


def whole_of_gemma2_2b(mesh, rank=0):
  config = default_config()
  config.model.preset = 'gemma2_2b'
  config.rollout.problems_per_step = 64
  config.lora.rank = rank
  mesh = AbstractMesh(mesh, AXES)
  run = shapes.planned_run(config, mesh, 3)
  return planner.whole_arrays(shapes.abstract_update_inputs(run), mesh.shape)


@pytest.mark.parametrize('mesh', [(1, 64, 2), (1, 4, 1), (1, 1, 4), (2, 2, 2)])
@pytest.mark.parametrize('rank', [0, 16])
def test_the_rules_split_every_large_parameter(mesh, rank):
  """Adapters, which one mesh axis splits at most, are no fault."""
  assert whole_of_gemma2_2b(mesh, rank) == []


@pytest.mark.parametrize(
  ('rule', 'axis', 'names'),
  [
    ('embed', 'fsdp', {'embedding', 'q', 'k', 'v', 'o', 'gate', 'up', 'down'}),
    ('vocab', 'tensor', {'embedding'}),
    ('heads', 'tensor', {'q', 'o'}),
    ('kv_heads', 'tensor', {'k', 'v'}),
    ('mlp', 'tensor', {'gate', 'up', 'down'}),
  ],
)
def test_one_rule_that_is_taken_away_is_noticed(monkeypatch, rule, axis, names):
  """Of the parameters, both moments and the reference, although another axis splits them."""
  monkeypatch.setitem(sharding.RULES, rule, ())
  found = whole_of_gemma2_2b((1, 64, 2))
  assert all(x['axes'] == [axis] for x in found)
  assert {x['name'].rpartition('/')[2] for x in found} == names and len(found) == 4 * len(names)
