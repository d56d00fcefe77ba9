"""The table of axes, and how a mesh is laid over devices, slices and hosts that are not there."""

import ast
import dataclasses
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import score_jax
from score_jax.core import sharding
from score_jax.core.sharding import MESH_AXES, make_mesh, partition_spec
from score_jax.model.decoder import DecoderConfig, abstract_params


def test_partition_spec():
  assert partition_spec(('batch', 'length', None)) == P(('data', 'fsdp'), None, None)
  assert partition_spec(('layers', 'embed', 'heads', 'head_dim')) == P(None, 'fsdp', 'tensor', None)
  with pytest.raises(ValueError, match="'vocabulary' has no rule; known: .*'vocab'"):
    partition_spec(('vocabulary', 'embed'))
  with pytest.raises(ValueError, match="two dimensions on mesh axis 'tensor'"):
    partition_spec(('heads', 'mlp'))
  with pytest.raises(ValueError, match="two dimensions on mesh axis 'fsdp'"):
    partition_spec(('batch', 'embed'))
  with pytest.raises(ValueError, match='2 axis names .* for an array of shape'):
    sharding.constrain(jnp.ones((2, 3, 4)), ('batch', 'length'))


def axes_of_parameters():
  """Names that the axes of some parameter have."""
  config = DecoderConfig(8, 2, 4, 6, 2, 1, 2, tie_embeddings=False)
  shapes, axes = abstract_params(config)
  shapes = jax.tree.leaves(shapes)
  axes = jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, tuple))
  for shape, names in zip(shapes, axes, strict=True):
    assert len(shape.shape) == len(partition_spec(names)), names
  return {name for names in axes for name in names if name is not None}


def axes_of_activations():
  """Names in the tuples that the package's calls of `constrain` end in."""
  names = set()
  for path in pathlib.Path(score_jax.__file__).parent.rglob('*.py'):
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
      if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'constrain':
        if isinstance(node.args[1], ast.Call):  # `decoding_axes`: names of parameters' axes
          continue
        axes = ast.literal_eval(node.args[1])
        partition_spec(axes)  # every call is one that the table allows
        names.update(name for name in axes if name is not None)
  return names


def test_every_rule_is_used():
  """A rule that silently never applies costs a pod."""
  assert axes_of_parameters() | axes_of_activations() == set(sharding.RULES)
  assert {axis for axes in sharding.RULES.values() for axis in axes} == set(MESH_AXES)


@pytest.mark.parametrize(
  ('shape', 'num_devices', 'want'),
  [
    ((-1, 1, 1), 8, (8, 1, 1)),
    ((2, -1, 2), 8, (2, 2, 2)),
    ((1, 4, 2), 8, (1, 4, 2)),
    ((1, 1, -1), 1, (1, 1, 1)),
  ],
)
def test_make_mesh(shape, num_devices, want):
  mesh = make_mesh(shape, jax.devices()[:1] * num_devices)
  assert mesh.axis_names == ('data', 'fsdp', 'tensor') and mesh.devices.shape == want
  assert sharding.batch_rows(mesh) == want[0] * want[1]


@pytest.mark.parametrize(
  ('shape', 'message'),
  [
    ((1, 1), 'needs 3 sizes'),
    ((3, 1, 1), r'config.mesh=\(3, 1, 1\) does not fit 8 devices'),
    ((-1, 3, 1), 'does not fit 8 devices'),
    ((-1, 16, 1), 'does not fit 8 devices'),
    ((-1, -1, 8), 'does not fit 8 devices'),
    ((-1, -2, 1), 'does not fit 8 devices'),
    ((0, 8, 1), 'does not fit 8 devices'),
    ((-1, 0, 1), 'does not fit 8 devices'),
  ],
)
def test_make_mesh_refuses(shape, message):
  with pytest.raises(ValueError, match=message):
    make_mesh(shape, jax.devices()[:1] * 8)


def test_rule_for_an_unknown_mesh_axis_is_refused():
  with pytest.raises(ValueError, match=r"rule of 'embed' names mesh axes \['model'\]"):
    partition_spec(('embed',), rules={'embed': ('model',)})


@dataclasses.dataclass(frozen=True)
class FakeDevice:
  """What jax tells of a device and `make_mesh` looks at."""

  id: int
  process_index: int
  coords: tuple[int, int, int]
  slice_index: int = 0
  device_kind: str = 'TPU v5'
  platform: str = 'tpu'
  core_on_chip: int = 0


def chips(size, host, num_slices=1, kind='TPU v5', platform='tpu'):
  """The devices of TPU slices in jax's order, host by host and x fastest, as libtpu lists them."""

  def ranges(x, y, z):
    return [(i, j, k) for k in range(z) for j in range(y) for i in range(x)]

  grid = [s // h for s, h in zip(size, host, strict=True)]
  devices = []
  for index in range(num_slices):
    for process, corner in enumerate(ranges(*grid)):
      for inner in ranges(*host):
        coords = tuple(c * h + i for c, h, i in zip(corner, host, inner, strict=True))
        owner = index * int(np.prod(grid)) + process
        devices.append(FakeDevice(len(devices), owner, coords, index, kind, platform))
  return devices


@pytest.mark.parametrize(
  ('shape', 'processes', 'is_allowed'),
  [
    ((4, 1, 1), (0, 0, 1, 1), True),
    ((1, 2, 2), (0, 0, 1, 1), True),
    ((1, 1, 4), (0, 0, 1, 1), False),  # one row on both processes
    ((2, 1, 2), (0, 1, 0, 1), False),
    ((4, 1, 1), (0, 1, 0, 1), False),  # a process's rows lie apart
    ((4, 1, 1), (0, 0, 0, 1), False),  # unequal shares
  ],
)
def test_rows_belong_to_one_process(shape, processes, is_allowed):
  mesh = types.SimpleNamespace(
    devices=np.asarray([FakeDevice(0, i, (0, 0, 0)) for i in processes]).reshape(shape),
    shape=dict(zip(MESH_AXES, shape, strict=True)),
  )
  if is_allowed:
    sharding._check_rows_are_local(mesh)
    return
  with pytest.raises(ValueError, match='make data . fsdp a multiple of the 2 processes'):
    sharding._check_rows_are_local(mesh)


@pytest.mark.parametrize('shape', [(2, 8, 1), (4, 4, 1), (2, 4, 2), (4, 1, 4), (-1, 2, 4)])
def test_only_data_crosses_slices(shape):
  devices = chips((2, 2, 2), (2, 2, 1), num_slices=2)
  mesh = make_mesh(shape, devices)
  assert mesh.axis_names == MESH_AXES and sorted(d.id for d in mesh.devices.flat) == [*range(16)]
  for replica, part in enumerate(mesh.devices):
    assert {d.slice_index for d in part.flat} == {replica // (mesh.shape['data'] // 2)}
  for row in mesh.devices.reshape(-1, mesh.shape['tensor']):
    assert len({d.process_index for d in row}) == 1


def test_slices_come_in_their_order():
  """However jax lists the devices, the batch begins on slice 0, as the problems of process 0 do."""
  devices = chips((2, 2, 1), (2, 2, 1), num_slices=2)
  mesh = make_mesh((2, 4, 1), devices[4:] + devices[:4])
  assert [d.slice_index for d in mesh.devices.flat] == [0] * 4 + [1] * 4


@pytest.mark.parametrize('shape', [(1, 16, 1), (1, -1, 2), (1, 4, 4)])
def test_slices_refuse_another_axis(shape):
  message = r'2 slices with \[8, 8\] devices.*make data a multiple of 2, for example \(2, -1, 1\)'
  with pytest.raises(ValueError, match=message):
    make_mesh(shape, chips((2, 2, 2), (2, 2, 1), num_slices=2))


def test_slices_of_unlike_size_are_refused():
  devices = chips((2, 2, 2), (2, 2, 1), num_slices=2)[:12]
  with pytest.raises(ValueError, match=r'2 slices with \[8, 4\] devices.*slices of one size'):
    make_mesh((-1, 1, 1), devices)


def test_nodes_of_gpus_are_no_slices():
  """Their slice_index counts the nodes, and fsdp over the nodes' network is usual."""
  devices = chips((2, 2, 1), (2, 2, 1), num_slices=2, kind='NVIDIA H100', platform='gpu')
  assert make_mesh((1, 8, 1), devices).devices.shape == (1, 8, 1)


def test_one_host_is_laid_as_a_ring():
  devices = chips((2, 2, 1), (2, 2, 1), kind='TPU v5 lite')
  ring = make_mesh((1, 4, 1), devices).devices.ravel()
  for one, other in zip(ring, np.roll(ring, 1), strict=True):
    assert sum(abs(a - b) for a, b in zip(one.coords, other.coords, strict=True)) == 1


@pytest.mark.parametrize('shape', [(1, 16, 1), (16, 1, 1), (4, 2, 2), (2, 2, 4), (1, 4, 4)])
def test_rows_stay_on_their_host(shape):
  mesh = make_mesh(shape, chips((4, 4, 1), (2, 2, 1), kind='TPU v5 lite'))
  owners = [d.process_index for d in mesh.devices.flat]
  assert owners == sorted(owners) and owners.count(0) == 4


def test_tensor_axis_over_hosts_is_refused():
  with pytest.raises(ValueError, match='make data . fsdp a multiple of the 4 processes'):
    make_mesh((1, 2, 8), chips((4, 4, 1), (2, 2, 1), kind='TPU v5 lite'))
