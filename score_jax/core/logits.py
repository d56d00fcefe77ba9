"""The projection to the vocabulary, which sampler and scorer share so that they agree."""

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class CappedHead:
  """A head whose logits x are squashed to cap * tanh(x / cap), so that none is beyond the cap.

  The cap travels with the matrix, so that whoever makes logits from it cannot forget it.

  Attributes:
    head_DV: [D, V] the output matrix.
    cap: above 0; static.
  """

  head_DV: jax.Array
  cap: float = flax.struct.field(pytree_node=False)


Head = jax.Array | CappedHead


def project(hidden: jax.Array, head: Head) -> jax.Array:
  """Projects hidden states to the vocabulary in float32.

  Args:
    hidden: [..., D] in the compute type.
    head: [D, V] in the parameters' type, which is rounded to the compute type first; or a
      `CappedHead` of it.

  Returns:
    f32[..., V] logits. Full float32 products where the compute type is float32: accelerators
    would otherwise round them, and differently for the shapes of sampler and scorer.

  Example:
    >>> import jax.numpy as jnp
    >>> head = CappedHead(jnp.array([[1.0, 100.0]]), cap=2.0)
    >>> [round(float(x), 3) for x in project(jnp.array([1.0]), head)]
    [0.924, 2.0]
  """
  if isinstance(head, CappedHead):
    return head.cap * jnp.tanh(project(hidden, head.head_DV) / head.cap)
  return jnp.einsum(
    '...d,dv->...v',
    hidden,
    head.astype(hidden.dtype),
    preferred_element_type=jnp.float32,
    precision=jax.lax.Precision.HIGHEST,
  )
