"""Parameters as decoding wants them: each layer by itself, in the compute type, gathered.

One token's matrix products read every weight once, so that whatever is done to a weight for each
token (a slice of the stack, a rounding, a gather over the mesh) costs as much as the product. It is
done once for a rollout instead.
"""

import functools

import jax

from score_jax.core.sharding import constrain
from score_jax.model.decoder import Decoder, abstract_params
from score_jax.model.layouts import leaf_path


def unrolled(decoder: Decoder) -> Decoder:
  """The same model, with layers that are not stacked."""
  return Decoder(decoder.config, is_unrolled=True)


@functools.partial(jax.jit, static_argnums=(0,))
def decoding_params(decoder: Decoder, params: dict) -> dict:
  """Prepares parameters for `unrolled(decoder)`.

  Args:
    decoder: the model.
    params: its parameters, layers stacked, adapters beside them or not.

  Returns:
    A tree with 'layer_0', 'layer_1', ... in the place of 'layers'. Matrices are in the compute
    type; norms, which compute in float32, are as they were. Whole over the mesh's fsdp axis, split
    over its tensor axis: so a weight is gathered once, not for each token.
  """
  c = decoder.config
  axes = abstract_params(c)[1]

  def prepare(keys, x):
    path = leaf_path(keys)
    if path[-1] != 'scale':
      x = x.astype(c.dtype)
    return _gather(x, _find(axes, path))

  prepared = jax.tree_util.tree_map_with_path(prepare, dict(params))
  layers = prepared.pop('layers')
  return prepared | {
    f'layer_{i}': jax.tree.map(lambda x, i=i: x[i], layers) for i in range(c.num_layers)
  }


def _find(axes, path) -> tuple | None:
  """The logical axes of a parameter; None for one that the model itself does not have."""
  for name in path:
    if name not in axes:
      return None
    axes = axes[name]
  return axes


def _gather(x: jax.Array, axes) -> jax.Array:
  if axes is None:
    axes = (None,) * x.ndim
  return constrain(x, tuple(None if name == 'embed' else name for name in axes))
