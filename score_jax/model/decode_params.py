"""Parameters as decoding wants them: each layer by itself, in the compute type, gathered.

One token's matrix products read every weight once, so that whatever is done to a weight for each
token (a slice of the stack, a rounding, a gather over the mesh) costs as much as the product. It is
done once for a rollout instead.
"""

import functools

import jax
import jax.numpy as jnp

from score_jax.core.logits import CappedHead, Head
from score_jax.core.paths import leaf_path
from score_jax.core.sharding import constrain
from score_jax.model.decoder import Decoder, abstract_params
from score_jax.model.decoder_config import DecoderConfig


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

  def prepare(keys, x):
    x = x.astype(decoding_type(c, keys, x))
    return constrain(x, decoding_axes(c, keys, x))

  prepared = jax.tree_util.tree_map_with_path(prepare, dict(params))
  layers = prepared.pop('layers')
  return prepared | {
    f'layer_{i}': jax.tree.map(lambda x, i=i: x[i], layers) for i in range(c.num_layers)
  }


def output_head(config: DecoderConfig, params: dict) -> Head:
  """The output matrix head_DV of prepared parameters, as `Decoder` gives it beside its states."""
  tied = config.tie_embeddings
  head_DV = params['embedder']['embedding'].T if tied else params['head']['kernel']
  return CappedHead(head_DV, config.logit_softcap) if config.logit_softcap else head_DV


def decoding_type(config: DecoderConfig, keys, x) -> jnp.dtype:
  """The type that a parameter has while decoding.

  Args:
    config: of the decoder.
    keys: where it stands in the tree, as jax says it.
    x: the parameter, or its shape and type.
  """
  return jnp.dtype(x.dtype if leaf_path(keys)[-1] == 'scale' else config.dtype)


def decoding_axes(config: DecoderConfig, keys, x) -> tuple[str | None, ...]:
  """The logical axes that a parameter is split over while decoding; arguments as above."""
  axes = _all_axes(config)
  for name in leaf_path(keys):
    if name not in axes:  # an adapter
      return (None,) * len(x.shape)
    axes = axes[name]
  return tuple(None if name == 'embed' else name for name in axes)


@functools.cache
def _all_axes(config: DecoderConfig) -> dict:
  return abstract_params(config)[1]
