"""Slices of TPUs: which there are, and how their chips are joined."""

import numpy as np
import pytest

from score_jax.planning.chips import CHIPS, chip_of, ring


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
