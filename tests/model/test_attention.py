"""Rotary frequencies by hand, and the plain attention where a query sees nothing."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.model.attention import attend, rope_frequencies
from score_jax.model.cache import in_order


def test_blind_query_is_finite():
  q = jnp.ones((1, 1, 2, 4))
  values = jnp.arange(12.0).reshape(1, 3, 1, 4)
  kv = in_order(values, values)
  out = jax.jit(attend)(q, [kv['k']], [kv['v']], jnp.zeros((1, 1, 3), bool))
  np.testing.assert_allclose(out[0, 0, 0], values[0, :, 0].mean(axis=0))


def test_rope_frequencies_of_llama_3_1():
  """By hand: wavelengths under 8192 / 4 stay, those over 8192 are 8 times as long."""
  plain, stretched = rope_frequencies(128, 5e5), rope_frequencies(128, 5e5, 8.0, (1.0, 4.0, 8192.0))
  wavelength = 2 * math.pi / plain
  np.testing.assert_array_equal(stretched[wavelength < 2048], plain[wavelength < 2048])
  np.testing.assert_allclose(stretched[wavelength > 8192], plain[wavelength > 8192] / 8, rtol=1e-6)
  ratio = (plain / stretched)[(wavelength > 2048) & (wavelength < 8192)]
  assert len(ratio) > 3 and (np.diff(ratio) > 0).all() and 1 < ratio[0] < ratio[-1] < 8
