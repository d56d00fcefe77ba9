"""Masked reductions: what is outside the mask does not count, and nothing is 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.core.masked import masked_max, masked_mean, masked_sum

X = np.array([[1.0, 2.0, np.nan], [np.nan, 4.0, 8.0]], np.float32)

MASK = ~np.isnan(X)

EMPTY = np.zeros_like(MASK)


@pytest.mark.parametrize('axis', [None, 0, 1])
def test_masked_reductions_ignore_what_is_outside(axis):
  np.testing.assert_array_equal(masked_sum(X, jnp.asarray(MASK), axis), np.nansum(X, axis))
  np.testing.assert_array_equal(masked_mean(X, jnp.asarray(MASK), axis), np.nanmean(X, axis))
  assert float(masked_max(X, jnp.asarray(MASK))) == 8.0
  # By hand: 1 + 2 + 4 + 8 = 15, over 4 numbers.
  assert float(masked_sum(X, jnp.asarray(MASK))) == 15.0
  assert float(masked_mean(X, jnp.asarray(MASK))) == 3.75


@pytest.mark.parametrize('reduction', [masked_sum, masked_mean, masked_max])
def test_masked_reductions_of_nothing_are_0(reduction):
  assert float(reduction(X, jnp.asarray(EMPTY))) == 0.0
  gradient = jax.grad(lambda x: reduction(x, jnp.asarray(MASK)))(X)
  assert np.all(np.isfinite(gradient)), 'a NaN outside the mask reaches the gradient'
  assert not np.any(gradient[~MASK])


@pytest.mark.parametrize('reduction', [masked_sum, masked_mean, masked_max])
def test_masked_reductions_refuse_other_masks(reduction):
  with pytest.raises(AssertionError):
    reduction(X, jnp.asarray(MASK[:, :2]))
  with pytest.raises(AssertionError):
    reduction(X, jnp.asarray(MASK, jnp.float32))  # weights are not a mask
