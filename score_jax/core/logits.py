"""The projection to the vocabulary, which sampler and scorer share so that they agree."""

import jax
import jax.numpy as jnp


def project(hidden: jax.Array, head_DV: jax.Array) -> jax.Array:
  """Projects hidden states to the vocabulary in float32.

  Args:
    hidden: [..., D] in the compute type.
    head_DV: [D, V] in the parameters' type; it is rounded to the compute type first.

  Returns:
    f32[..., V] logits. Full float32 products where the compute type is float32: accelerators
    would otherwise round them, and differently for the shapes of sampler and scorer.
  """
  head_DV = head_DV.astype(hidden.dtype)
  return jnp.einsum(
    '...d,dv->...v',
    hidden,
    head_DV,
    preferred_element_type=jnp.float32,
    precision=jax.lax.Precision.HIGHEST,
  )
