"""One table of logical axes, and the mesh that it maps them to.

Parameters and activations name their axes ('vocab', 'heads', ...); `RULES` says on which mesh
axes each name is split. An axis name that the table does not know, or two names of one array on
the same mesh axis, is an error: a rule that silently never applies costs a pod.
"""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

MESH_AXES = ('data', 'fsdp', 'tensor')
HOST = 'pinned_host'  # the kind of memory where an offloaded array lies

RULES: dict[str, tuple[str, ...]] = {
  # Activations.
  'batch': ('data', 'fsdp'),
  'length': (),
  'activation_embed': (),
  # Parameters; 'heads', 'mlp' and 'vocab' split activations the same way.
  'layers': (),
  'embed': ('fsdp',),
  'heads': ('tensor',),
  'kv_heads': ('tensor',),
  'head_dim': (),
  'mlp': ('tensor',),
  'vocab': ('tensor',),
  # Scoring: each device takes a part of the vocabulary for the rows of all, so that hidden states
  # travel and the output matrix, which is far larger, does not.
  'scored_batch': ('data',),
  'scored_vocab': ('tensor', 'fsdp'),
}


def make_mesh(shape: Sequence[int], devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Builds the device mesh.

  TPU slices are connected by the slow network between hosts, so only the data axis, which sums
  gradients once an update, goes from slice to slice. Within a slice the devices are laid as jax
  advises for its interconnect, where that keeps the rows of each process together; else process
  by process, which keeps the tensor axis on one host.

  Args:
    shape: sizes of (data, fsdp, tensor); one entry may be -1, for what is left.
    devices: the devices to use; all by default.

  Returns:
    A mesh with the axes `MESH_AXES`.

  Raises:
    ValueError: if the sizes do not multiply to the number of devices, if another axis than data
      would go from slice to slice, or if rows of the batch would lie on devices of two processes.
  """
  devices = list(jax.devices() if devices is None else devices)
  sizes = list(shape)
  if len(sizes) != len(MESH_AXES):
    raise ValueError(f'config.mesh={tuple(shape)} needs {len(MESH_AXES)} sizes, for {MESH_AXES}')
  if sizes.count(-1) == 1:
    known = int(np.prod([s for s in sizes if s != -1]))
    sizes[sizes.index(-1)] = len(devices) // known if known else 0
  if int(np.prod(sizes)) != len(devices) or min(sizes) < 1:
    raise ValueError(
      f'config.mesh={tuple(shape)} does not fit {len(devices)} devices: the sizes of {MESH_AXES} '
      f'must multiply to {len(devices)}'
    )
  slices = _slices(devices)
  if len(set(map(len, slices))) > 1 or sizes[0] % len(slices):
    raise ValueError(
      f'config.mesh={tuple(shape)}: the devices are of {len(slices)} slices with '
      f'{[len(part) for part in slices]} devices, and only the data axis may go from slice to '
      f'slice: take slices of one size, and make data a multiple of {len(slices)}, for example '
      f'({len(slices)}, -1, 1)'
    )
  inner = (sizes[0] // len(slices), *sizes[1:])
  mesh = Mesh(np.concatenate([_within_slice(inner, part) for part in slices]), MESH_AXES)
  _check_rows_are_local(mesh)
  return mesh


def _slices(devices: Sequence[jax.Device]) -> list[list[jax.Device]]:
  """Parts the devices by TPU slice; GPUs number nodes so, whose network an axis may well cross."""
  slices: dict[int, list[jax.Device]] = {}
  for device in devices:
    index = getattr(device, 'slice_index', 0) if device.platform == 'tpu' else 0
    slices.setdefault(index, []).append(device)
  return [slices[index] for index in sorted(slices)]


def _within_slice(sizes: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
  if devices[0].platform == 'tpu':
    laid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    if _are_rows_local(_owners(laid)):
      return laid
  return np.asarray(devices).reshape(sizes)


def _owners(devices: np.ndarray) -> list[list[int]]:
  """The processes that hold each part of the batch; `devices` are laid by (data, fsdp, tensor)."""
  parts = devices.reshape(-1, devices.shape[-1])
  return [sorted({device.process_index for device in part}) for part in parts]


def _are_rows_local(owners: list[list[int]]) -> bool:
  processes = sorted({process for owner in owners for process in owner})
  share = max(1, len(owners) // len(processes))
  return owners == [[process] for process in processes for _ in range(share)]


def _check_rows_are_local(mesh: Mesh) -> None:
  """Each process must hold whole rows of the batch, in one piece, as many as every other one."""
  owners = _owners(mesh.devices)
  processes = {process for owner in owners for process in owner}
  if not _are_rows_local(owners):
    raise ValueError(
      f'config.mesh={mesh.devices.shape} cuts the batch into {len(owners)} parts, which lie on '
      f'processes {owners}. Each process must hold rows of its own, in one piece and as many as '
      f'the others: make data * fsdp a multiple of the {len(processes)} processes'
    )


def partition_spec(axes: Sequence[str | None], rules=None) -> P:
  """Looks up the mesh axes of an array's logical axes.

  Args:
    axes: one logical name (or None, replicated) for each dimension.
    rules: the table; `RULES` by default.

  Returns:
    The PartitionSpec.

  Raises:
    ValueError: for a name that the table lacks, a mesh axis that there is not, or one that is
      used twice.

  Example:
    >>> tuple(partition_spec(('vocab', 'embed')))
    ('tensor', 'fsdp')
  """
  rules = RULES if rules is None else rules
  used: list[str] = []
  spec: list[str | tuple[str, ...] | None] = []
  for name in axes:
    if name is not None and name not in rules:
      raise ValueError(f'logical axis {name!r} has no rule; known: {sorted(rules)}')
    mesh_axes = () if name is None else rules[name]
    unknown = set(mesh_axes) - set(MESH_AXES)
    if unknown:
      raise ValueError(f'the rule of {name!r} names mesh axes {sorted(unknown)}, not {MESH_AXES}')
    twice = set(mesh_axes) & set(used)
    if twice:
      raise ValueError(f'axes {tuple(axes)} put two dimensions on mesh axis {sorted(twice)[0]!r}')
    used.extend(mesh_axes)
    spec.append(None if not mesh_axes else mesh_axes[0] if len(mesh_axes) == 1 else mesh_axes)
  return P(*spec)


def named_shardings(axes, mesh: Mesh):
  """Where each array of a tree lies on a mesh.

  Args:
    axes: a tree of tuples of logical names, one for each dimension.
    mesh: from `make_mesh`.

  Returns:
    A tree of NamedSharding, of the same form.

  Raises:
    ValueError: see `partition_spec`.
  """
  return jax.tree.map(
    lambda names: NamedSharding(mesh, partition_spec(names)),
    axes,
    is_leaf=lambda x: isinstance(x, tuple),
  )


def on_devices(tree):
  """Moves arrays that lie in the host's memory to their devices; leaves the others where they are.

  Args:
    tree: a tree of arrays, or inside jit of tracers.

  Returns:
    The tree; an array that was on its devices is the same object, no copy.
  """

  def move(x):
    if isinstance(x, jax.core.Tracer):
      return jax.device_put(x, jax.memory.Space.Device)
    if x.sharding.memory_kind != HOST:
      return x
    return jax.device_put(x, x.sharding.with_memory_kind('device'))

  return jax.tree.map(move, tree)


def constrain(x: jax.Array, axes: Sequence[str | None]) -> jax.Array:
  """Pins an activation to its place on the mesh; does nothing where no mesh is set.

  Args:
    x: any array.
    axes: one logical name (or None) for each dimension of `x`.

  Returns:
    `x`, constrained.

  Raises:
    ValueError: see `partition_spec`; also if the number of names is not the rank of `x`.
  """
  if len(axes) != x.ndim:
    raise ValueError(f'{len(axes)} axis names {tuple(axes)} for an array of shape {x.shape}')
  if jax.sharding.get_abstract_mesh().empty:
    return x
  return jax.lax.with_sharding_constraint(x, partition_spec(axes))


def batch_sharding(mesh: Mesh, rank: int) -> NamedSharding:
  """Sharding of an array whose first dimension is the batch.

  Args:
    mesh: from `make_mesh`.
    rank: number of dimensions.

  Returns:
    The sharding: rows split over data and fsdp, the rest whole.
  """
  return NamedSharding(mesh, partition_spec(('batch',) + (None,) * (rank - 1)))


def put_batch(mesh: Mesh, tree):
  """Places process-local rows on the devices of a mesh.

  Args:
    mesh: from `make_mesh`.
    tree: a tree of host arrays; every process holds its own rows of the first dimension.

  Returns:
    The tree as global arrays, rows split over data and fsdp.

  Raises:
    ValueError: from jax, if a number of rows does not divide by the devices.
  """

  def put(x):
    x = np.asarray(x)
    return jax.make_array_from_process_local_data(batch_sharding(mesh, x.ndim), x)

  return jax.tree.map(put, tree)


def local_rows(tree):
  """Fetches this process's rows of a batch that lies on the devices of all processes.

  The counterpart of `put_batch`. Arrays that are whole on each process come back whole.

  Args:
    tree: a tree of arrays, rows split over data and fsdp.

  Returns:
    The tree as host arrays.
  """

  def fetch(x):
    if x.is_fully_addressable or x.is_fully_replicated:
      return np.asarray(x)
    # By the first row of each shard; devices along the tensor axis hold the same rows.
    shards = {shard.index[0].start or 0: shard.data for shard in x.addressable_shards}
    return np.concatenate([np.asarray(shards[first]) for first in sorted(shards)])

  for x in jax.tree.leaves(tree):
    x.copy_to_host_async()
  return jax.tree.map(fetch, tree)


def all_rows(tree):
  """Fetches the rows of all processes, to each of them.

  Args:
    tree: a tree of arrays, on the devices of one process or of all.

  Returns:
    The tree as host arrays, the same on every process.
  """
  if jax.process_count() == 1:
    return jax.device_get(tree)
  return multihost_utils.process_allgather(tree, tiled=True)


def divides(size: int, axis: str) -> bool:
  """Whether an axis of an array is split evenly over the mesh that is set; True where none is.

  Args:
    size: of the axis.
    axis: its logical name.
  """
  mesh = jax.sharding.get_abstract_mesh()
  return mesh.empty or size % math.prod(mesh.shape[x] for x in RULES[axis]) == 0


def batch_rows(mesh: Mesh) -> int:
  """How many parts the batch is split into: a number of rows must be a multiple of this."""
  return mesh.shape['data'] * mesh.shape['fsdp']
