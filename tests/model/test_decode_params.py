"""Parameters for decoding: every layer by itself, matrices in the compute type."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta
from small_models import random_params, tiny_decoder

from score_jax.core.paths import leaf_path
from score_jax.model.decode_params import decoding_axes, decoding_params, unrolled
from score_jax.model.decoder import Decoder, abstract_params

CONFIG = dataclasses.replace(tiny_decoder(), dtype='bfloat16')


def leaves(tree):
  return {leaf_path(keys): x for keys, x in jax.tree_util.tree_flatten_with_path(tree)[0]}


def test_every_layer_is_a_slice_of_the_stack_and_rounded_once():
  params = random_params(CONFIG)
  expected = {}
  for path, x in leaves(params).items():
    x = x if path[-1] == 'scale' else x.astype(jnp.bfloat16)
    if path[0] == 'layers':
      expected |= {(f'layer_{i}', *path[1:]): x[i] for i in range(CONFIG.num_layers)}
    else:
      expected[path] = x
  found = leaves(decoding_params(Decoder(CONFIG), params))
  assert found.keys() == expected.keys()
  for path, x in found.items():
    assert x.dtype == expected[path].dtype, path
    np.testing.assert_array_equal(x, expected[path])


def test_the_unrolled_model_has_those_parameters():
  tokens = np.zeros((1, 1), np.int32)
  decoder = unrolled(Decoder(CONFIG))
  mask = np.ones((1, 1, 1), bool)
  made = jax.eval_shape(decoder.init, jax.random.key(0), tokens, tokens, mask)['params']
  prepared = jax.eval_shape(lambda: decoding_params(Decoder(CONFIG), random_params(CONFIG)))
  assert {path: x.shape for path, x in leaves(prepared).items()} == {
    path: x.shape for path, x in leaves(meta.unbox(made)).items()
  }


def test_what_is_split_while_decoding():
  """Nothing over `embed`, which training splits; adapters not at all."""
  axes = abstract_params(CONFIG)[1]
  for keys, x in jax.tree_util.tree_flatten_with_path(abstract_params(CONFIG)[0])[0]:
    of_training = axes
    for name in leaf_path(keys):
      of_training = of_training[name]
    found = decoding_axes(CONFIG, keys, x)
    assert found == tuple(None if name == 'embed' else name for name in of_training)
  adapter = {'layers': {'attn': {'q_a': jax.ShapeDtypeStruct((3, 12, 2), 'float32')}}}
  [(keys, x)] = jax.tree_util.tree_flatten_with_path(adapter)[0]
  assert decoding_axes(CONFIG, keys, x) == (None, None, None)
