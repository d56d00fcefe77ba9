"""Which chips talk to each other in a collective, and along which axes of the mesh they lie."""

import re
from collections.abc import Mapping

import numpy as np

_IOTA = re.compile(r'replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?')
_MESH = re.compile(
  r'replica_groups=mesh\[([^\]]*)\]'
  r'(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? ?\{([^}]*)\}'
)
_LISTED = re.compile(r'(?:replica_groups|source_target_pairs)=\{((?:\{[\d,]*\},?)*)\}')


def groups_of(attributes: str, num_chips: int) -> np.ndarray:
  """Reads the groups of a collective, in any of the ways in which XLA writes them.

  Args:
    attributes: of the instruction.
    num_chips: of the whole program; an empty list of groups means all of them.

  Returns:
    i64[groups, members] numbers of chips; of a permutation the pairs.

  Raises:
    ValueError: for another way of writing them.

  Example:
    >>> groups_of('replica_groups=[2,2]<=[2,2]T(1,0), dimensions={0}', 4).tolist()
    [[0, 2], [1, 3]]
    >>> groups_of("replica_groups=mesh['a'=2,'b'=2] {'a'}, to_apply=%add", 4).tolist()
    [[0, 2], [1, 3]]
    >>> groups_of("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}", 4).tolist()
    [[0, 1], [2, 3]]
    >>> groups_of('replica_groups={{0,1},{2,3}}', 4).tolist()
    [[0, 1], [2, 3]]
  """
  iota, mesh, listed = (pattern.search(attributes) for pattern in (_IOTA, _MESH, _LISTED))
  if iota:
    return _chips(num_chips, iota[3], iota[4]).reshape(int(iota[1]), int(iota[2]))
  if mesh:
    sizes = re.findall(r"'(\w+)'=(\d+)", mesh[1])
    chosen = re.findall(r"'(\w+)'", mesh[4])
    names = [name for name, _ in sizes]
    order = [names.index(name) for name in [n for n in names if n not in chosen] + chosen]
    ids = _chips(num_chips, mesh[2] or str(num_chips), mesh[3])
    ids = ids.reshape([int(size) for _, size in sizes]).transpose(order)
    members = np.prod([int(size) for name, size in sizes if name in chosen], dtype=int)
    return ids.reshape(-1, members)
  if listed:
    groups = [[int(x) for x in g.split(',')] for g in re.findall(r'\{([\d,]+)\}', listed[1])]
    return np.array(groups or [list(range(num_chips))])
  raise ValueError(f'groups of chips that cannot be read: {attributes[:200]}')


def _chips(num_chips: int, dims: str, order: str | None) -> np.ndarray:
  """Numbers of chips in an order that is written as '4,2' and '1,0'; None leaves them."""
  shape = [int(x) for x in dims.split(',')]
  ids = np.arange(num_chips).reshape(shape)
  return ids.transpose([int(x) for x in order.split(',')]) if order else ids


def axes_of(groups: np.ndarray, mesh: Mapping[str, int]) -> str:
  """Names the mesh axes along which the members of a group differ.

  Args:
    groups: from `groups_of`.
    mesh: sizes of the axes, the chips numbered along the last one first.

  Returns:
    Names joined by '+'; '' for groups of one chip.

  Example:
    >>> axes_of(np.array([[0, 2], [1, 3]]), {'data': 1, 'fsdp': 2, 'tensor': 2})
    'fsdp'
  """
  places = np.stack(np.unravel_index(groups, tuple(mesh.values())))
  differs = (places != places[:, :, :1]).any(axis=(1, 2))
  return '+'.join(name for name, d in zip(mesh, differs, strict=True) if d)
