"""What a TPU chip can do, by generation: the numbers that a plan's times rest on."""

import dataclasses
import math
import re

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """One chip, as its maker describes it.

  Attributes:
    hbm_bytes: memory of its own that a program may take, as libtpu says when one takes more.
    flops_per_s: peak, products of bfloat16 matrices.
    hbm_bytes_per_s: peak, of its memory.
    link_bytes_per_s: of one link to a neighbour, one way.
    wraps_from: extent from which an axis of a slice is closed to a ring: twice the links.
    shapes: of the slices that are offered.
    max_cube_chips: of a slice of whole cubes (4x4x4), which is offered in any shape. Such slices
      are closed along all axes, smaller ones along none. 0 for a generation without cubes.
  """

  hbm_bytes: int
  flops_per_s: float
  hbm_bytes_per_s: float
  link_bytes_per_s: float
  wraps_from: int
  shapes: tuple[str, ...]
  max_cube_chips: int = 0


_FLAT = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
_BELOW_A_CUBE = ('2x2x1', '2x2x2', '2x2x4', '2x4x4')
# Source: https://docs.cloud.google.com/tpu/docs/v5e, .../v5p and .../v6e, read in 2026. Links are
# the stated bandwidth of a chip, both ways, over the two ways and its links (4 in a 2D torus,
# 6 in a 3D torus): v5e 400 GB/s, v6e 800 GB/s, v5p 4800 Gbit/s one way. A slice of v5e or v6e is
# closed only where it takes the pod's whole 16 chips of an axis, one of v5p from a cube on.
CHIPS = {
  'v5e': Chip(int(15.75 * GIB), 197e12, 819e9, 50e9, 16, _FLAT),
  'v5p': Chip(int(95.74 * GIB), 459e12, 2765e9, 100e9, 4, _BELOW_A_CUBE, 6144),
  'v6e': Chip(int(31.25 * GIB), 918e12, 1638e9, 100e9, 16, _FLAT),
}
HOP_S = 1e-6  # a message to a neighbour takes at least about so long


def chip_of(topology: str) -> Chip:
  """Looks up the chip of a topology.

  Args:
    topology: such as 'v5p:4x4x8'.

  Returns:
    The chip.

  Raises:
    ValueError: for a generation that the table lacks, or a slice that is not offered.
  """
  generation, _, shape = topology.partition(':')
  if generation not in CHIPS:
    raise ValueError(
      f'--topology={topology}: the chip {generation!r} is none of {", ".join(sorted(CHIPS))}, for '
      'example v5p:4x4x8'
    )
  chip = CHIPS[generation]
  if shape not in chip.shapes and not _is_of_cubes(shape, chip.max_cube_chips):
    cubes = (
      f', and multiples of 4 in ascending order, up to {chip.max_cube_chips} chips, for example '
      '4x4x8'
    )
    raise ValueError(
      f'--topology={topology}: no slice of {generation} is {shape!r}; there are '
      f'{", ".join(chip.shapes)}{cubes if chip.max_cube_chips else ""}'
    )
  return chip


def _is_of_cubes(shape: str, max_chips: int) -> bool:
  if not re.fullmatch(r'[1-9]\d{0,3}(x[1-9]\d{0,3}){2}', shape):
    return False
  dims = [int(x) for x in shape.split('x')]
  is_named_so = dims == sorted(dims) and not any(x % 4 for x in dims)
  return is_named_so and math.prod(dims) <= max_chips


def ring(chip: Chip, shape: tuple[int, ...], coordinates: list[tuple[int, ...]]) -> tuple[int, int]:
  """How a group of chips is joined.

  Along an axis it is a ring if the slice is closed there and the group takes all of it.

  Args:
    chip: their generation.
    shape: of the slice.
    coordinates: the place of each in the slice.

  Returns:
    Links of one chip that the group's messages can use at once, and hops to the farthest chip.

  Example:
    >>> ring(CHIPS['v5p'], (4, 4, 8), [(0, 0, z) for z in range(8)])
    (2, 4)
    >>> ring(CHIPS['v5p'], (2, 2, 4), [(0, 0, z) for z in range(4)])
    (1, 3)
    >>> ring(CHIPS['v5e'], (4, 4), [(0, 0), (0, 1), (1, 0), (1, 1)])
    (2, 2)
  """
  links = hops = 0
  for size, places in zip(shape, zip(*coordinates, strict=True), strict=True):
    extent = len(set(places))
    if extent > 1:
      is_closed = (min(shape) if chip.max_cube_chips else size) >= chip.wraps_from
      is_ring = is_closed and extent == size
      links += 2 if is_ring else 1
      hops += extent // 2 if is_ring else extent - 1
  return max(links, 1), hops
