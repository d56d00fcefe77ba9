"""Masked reductions: the one place where a mean over a part of an array is taken.

Every average in this project (over sampled tokens, over groups, over problems) goes through these
functions, so that an empty selection is 0 everywhere and never NaN.
"""

import chex
import jax
import jax.numpy as jnp


def masked_sum(x: jax.Array, mask: jax.Array, axis: int | None = None) -> jax.Array:
  """Sums `x` where `mask` holds; a NaN outside the mask does not reach the sum.

  Args:
    x: f32[...]; any unit.
    mask: bool[...], same shape.
    axis: the axis to reduce, or None for all.

  Returns:
    The sum, 0 where nothing is selected.

  Raises:
    AssertionError: at trace time, if shapes or the mask's dtype disagree.

  Example:
    >>> import jax.numpy as jnp
    >>> float(masked_sum(jnp.array([1.0, 2.0, jnp.nan]), jnp.array([True, True, False])))
    3.0
  """
  chex.assert_equal_shape((x, mask))
  chex.assert_type(mask, bool)
  return jnp.sum(jnp.where(mask, x, jnp.zeros_like(x)), axis=axis)


def masked_mean(x: jax.Array, mask: jax.Array, axis: int | None = None) -> jax.Array:
  """Averages `x` where `mask` holds.

  Args:
    x: f32[...]; any unit.
    mask: bool[...], same shape.
    axis: the axis to reduce, or None for all.

  Returns:
    The mean over selected entries, 0 where nothing is selected.

  Raises:
    AssertionError: at trace time, if shapes or the mask's dtype disagree.

  Example:
    >>> import jax.numpy as jnp
    >>> float(masked_mean(jnp.array([1.0, 2.0, 9.0]), jnp.array([True, True, False])))
    1.5
  """
  count = jnp.sum(mask, axis=axis)
  return masked_sum(x, mask, axis) / jnp.maximum(count, 1)


def masked_max(x: jax.Array, mask: jax.Array) -> jax.Array:
  """Largest `x` where `mask` holds.

  Args:
    x: f32[...]; any unit; not negative (an empty selection gives 0).
    mask: bool[...], same shape.

  Returns:
    f32[], 0 where nothing is selected.

  Raises:
    AssertionError: at trace time, if shapes or the mask's dtype disagree.

  Example:
    >>> import jax.numpy as jnp
    >>> float(masked_max(jnp.array([1.0, 9.0]), jnp.array([True, False])))
    1.0
  """
  chex.assert_equal_shape((x, mask))
  chex.assert_type(mask, bool)
  return jnp.max(jnp.where(mask, x, jnp.zeros_like(x)))
