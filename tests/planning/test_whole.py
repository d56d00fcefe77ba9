"""Plans find large arrays that lie whole along a mesh axis by accident, and none on purpose."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as P

from score_jax.core import sharding
from score_jax.core.config import default_config
from score_jax.planning import shapes
from score_jax.planning import tpu as planner

AXES = ('data', 'fsdp', 'tensor')


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
