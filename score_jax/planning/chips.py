"""What a TPU chip can do, by generation: the numbers that a plan's times rest on."""

import dataclasses
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
    num_axes: of the torus.
  """

  hbm_bytes: int
  flops_per_s: float
  hbm_bytes_per_s: float
  link_bytes_per_s: float
  wraps_from: int
  num_axes: int


# Source: https://docs.cloud.google.com/tpu/docs/v5e, .../v5p and .../v6e, read in 2026. Links are
# the stated bandwidth of a chip, both ways, over the two ways and its links (4 in a 2D torus,
# 6 in a 3D torus): v5e 400 GB/s, v6e 800 GB/s, v5p 4800 Gbit/s one way. A slice of v5e or v6e is
# closed only where it takes the pod's whole 16 chips of an axis.
CHIPS = {
  'v5e': Chip(int(15.75 * GIB), 197e12, 819e9, 50e9, 16, 2),
  'v5p': Chip(int(95.74 * GIB), 459e12, 2765e9, 100e9, 4, 3),
  'v6e': Chip(int(31.25 * GIB), 918e12, 1638e9, 100e9, 16, 2),
}
HOP_S = 1e-6  # a message to a neighbour takes at least about so long


def chip_of(topology: str) -> Chip:
  """Looks up the chip of a topology.

  Args:
    topology: such as 'v5p:4x4x8'.

  Returns:
    The chip.

  Raises:
    ValueError: for a generation that the table lacks, or a shape that it does not come in.
  """
  generation, _, shape = topology.partition(':')
  if generation not in CHIPS:
    raise ValueError(
      f'--topology={topology}: the chip {generation!r} is none of {sorted(CHIPS)}, for example '
      'v5p:4x4x8'
    )
  chip = CHIPS[generation]
  if not re.fullmatch('x'.join([r'[1-9]\d*'] * chip.num_axes), shape):
    example = 'x'.join('44' if chip.num_axes == 2 else '448')
    raise ValueError(
      f'--topology={topology}: a slice of {generation} has {chip.num_axes} numbers, for example '
      f'{generation}:{example}'
    )
  return chip


def ring(chip: Chip, coordinates: list[tuple[int, ...]]) -> tuple[int, int]:
  """How a group of chips is joined.

  Args:
    chip: their generation.
    coordinates: the place of each in the torus.

  Returns:
    Links of one chip that the group's messages can use at once, and hops to the farthest chip.

  Example:
    >>> ring(CHIPS['v5p'], [(0, 0, z) for z in range(8)])
    (2, 4)
    >>> ring(CHIPS['v5e'], [(0, 0), (0, 1), (1, 0), (1, 1)])
    (2, 2)
  """
  links = hops = 0
  for places in zip(*coordinates, strict=True):
    extent = len(set(places))
    if extent > 1:
      is_ring = extent >= chip.wraps_from
      links += 2 if is_ring else 1
      hops += extent // 2 if is_ring else extent - 1
  return max(links, 1), hops
