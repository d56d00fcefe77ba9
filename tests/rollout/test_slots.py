"""Gathering and writing keys and values, against NumPy's own indexing."""

import jax
import numpy as np
import pytest

from score_jax.core.sharding import make_mesh
from score_jax.rollout.slots import put, put_rows, take, take_rows

B, M, H, C = 4, 2, 3, 9
SLOT, FIRST = np.array([2, 0, 3]), np.array([5, 0, 2])


def cache_of(rng, rows, length):
  return {
    'k': rng.normal(size=(rows, M, H, length)).astype(np.float32),
    'v': rng.normal(size=(rows, M, length, H)).astype(np.float32),
  }


@pytest.mark.parametrize('has_mesh', [False, True])
def test_take_and_put(has_mesh):
  rng = np.random.default_rng(0)
  layers = tuple(cache_of(rng, B, C) for _ in range(2))
  new = tuple(cache_of(rng, 3, 4) for _ in range(2))
  x, more = rng.normal(size=(B, 5)).astype(np.float32), rng.normal(size=(3, 5)).astype(np.float32)
  is_meant = np.array([True, False, True])
  mesh = make_mesh((1, 1, 1), jax.devices()[:1])
  with jax.sharding.set_mesh(mesh if has_mesh else jax.sharding.get_mesh()):
    taken = jax.jit(take, static_argnums=2)(layers, SLOT, 6)
    written = jax.jit(put)(layers, new, SLOT, FIRST)
    rows, some = jax.jit(put_rows)(x, more, SLOT, is_meant), jax.jit(take_rows)(x, SLOT)
  for kv, part, after, extra in zip(layers, taken, written, new, strict=True):
    np.testing.assert_array_equal(part['k'], kv['k'][SLOT][..., :6])
    np.testing.assert_array_equal(part['v'], kv['v'][SLOT][:, :, :6])
    k, v = kv['k'].copy(), kv['v'].copy()
    for i, (slot, first) in enumerate(zip(SLOT, FIRST, strict=True)):
      k[slot, :, :, first : first + 4] = extra['k'][i]
      v[slot, :, first : first + 4] = extra['v'][i]
    np.testing.assert_array_equal(after['k'], k)
    np.testing.assert_array_equal(after['v'], v)
  want = x.copy()
  want[SLOT[is_meant]] = more[is_meant]
  np.testing.assert_array_equal(rows, want)
  np.testing.assert_array_equal(some, x[SLOT])
