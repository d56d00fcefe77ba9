"""Adapters: what they add to a model, and their gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import compiled_decoder, random_params, tiny_decoder

from score_jax.core.paths import nest
from score_jax.model import lora as lora_lib
from score_jax.model.lora import Lora

SIZES = tiny_decoder(num_layers=2, qkv_bias=True)
PARAMS = random_params(SIZES)
ALL = Lora(rank=2, alpha=6.0, targets=tuple(lora_lib.TARGETS))
# The einsum that multiplies A and B of each target, layers first.
PRODUCTS = {
  'q': 'ldr,lrnh->ldnh',
  'k': 'ldr,lrnh->ldnh',
  'v': 'ldr,lrnh->ldnh',
  'o': 'lnhr,lrd->lnhd',
  'gate': 'ldr,lrf->ldf',
  'up': 'ldr,lrf->ldf',
  'down': 'lfr,lrd->lfd',
}


def draw_adapters(lora, seed=0):
  """Adapters of which no part is 0."""
  rng = np.random.default_rng(seed)
  shapes, _ = lora_lib.abstract_adapters(SIZES, lora)
  return jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)


def logits(params, config=SIZES):
  tokens = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.int32)
  positions = np.broadcast_to(np.arange(4, dtype=np.int32), (2, 4))
  return compiled_decoder(config)(params, tokens, positions, np.ones((2, 4), bool))[1]


def weights_by_hand(adapters, lora):
  """W + A B * alpha / rank, in float64."""
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), PARAMS)
  for name in lora.targets:
    module = lora_lib.TARGETS[name][0]
    a, b = (np.float64(adapters['layers'][module][f'{name}_{x}']) for x in 'ab')
    params['layers'][module][name] += np.einsum(PRODUCTS[name], a, b) * lora.alpha / lora.rank
  return jax.tree.map(np.float32, params)


@pytest.mark.parametrize(
  ('targets', 'remat'),
  [
    (('q', 'o', 'gate'), 'none'),
    (('k', 'v', 'up', 'down'), 'none'),
    (ALL.targets, 'none'),
    (ALL.targets, 'block'),
  ],
)
def test_adapted_model_is_the_model_of_the_sums(targets, remat):
  lora = dataclasses.replace(ALL, targets=targets)
  config = dataclasses.replace(SIZES, remat=remat)
  adapters = draw_adapters(lora)
  joined = lora_lib.join(PARAMS, adapters, lora)
  want = logits(weights_by_hand(adapters, lora))
  np.testing.assert_allclose(logits(joined, config), want, atol=1e-5)
  assert np.abs(want - logits(PARAMS)).max() > 1e-2  # or nothing was compared
  merged = lora_lib.merge(jax.tree.map(np.copy, PARAMS), adapters, lora)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6),
    merged,
    weights_by_hand(adapters, lora),
  )
  assert all(isinstance(x, np.ndarray) and x.dtype == np.float32 for x in jax.tree.leaves(merged))


@pytest.mark.parametrize('fault', [{'alpha': 3.0}, {'rank': 1}])
def test_the_check_can_fail(fault):
  adapters = draw_adapters(ALL)
  joined = lora_lib.join(PARAMS, adapters, dataclasses.replace(ALL, **fault))
  with pytest.raises(AssertionError):
    want = logits(weights_by_hand(adapters, ALL))
    np.testing.assert_allclose(logits(joined), want, atol=1e-5)


def test_gradients_are_those_of_the_weights_projected():
  """dA = scale dW B', dB = scale A' dW, with dW of the model of the sums; none for W itself."""
  adapters = draw_adapters(ALL)

  def loss(params):
    return jnp.sum(jnp.sin(logits(params)))

  found = jax.jit(jax.grad(lambda a: loss(lora_lib.join(PARAMS, a, ALL))))(adapters)
  by_weight = jax.jit(jax.grad(loss))(weights_by_hand(adapters, ALL))
  for name, equation in PRODUCTS.items():
    module, (inputs, outputs) = lora_lib.TARGETS[name][0], equation.split('->')[0].split(',')
    a, b = (adapters['layers'][module][f'{name}_{x}'] for x in 'ab')
    dw, whole = by_weight['layers'][module][name], equation.split('->')[1]
    want = {
      f'{name}_a': ALL.scale * np.einsum(f'{whole},{outputs}->{inputs}', dw, b),
      f'{name}_b': ALL.scale * np.einsum(f'{inputs},{whole}->{outputs}', a, dw),
    }
    for key, value in want.items():
      np.testing.assert_allclose(found['layers'][module][key], value, 1e-5, 1e-4, err_msg=key)


def test_first_adapters_change_nothing_and_do_not_depend_on_the_mesh():
  first = dict(lora_lib.iter_first_adapters(SIZES, ALL, seed=3))
  again = dict(lora_lib.iter_first_adapters(SIZES, ALL, seed=3))
  jax.tree.map(np.testing.assert_array_equal, first, again)
  joined = lora_lib.join(PARAMS, nest(first.items()), ALL)
  np.testing.assert_array_equal(logits(joined), logits(PARAMS))
  assert joined['layers']['attn']['q'] is PARAMS['layers']['attn']['q']  # no copy
  for path, x in first.items():
    if path[-1].endswith('_a'):
      limit = np.prod(x.shape[1:-1]) ** -0.5
      assert 0.8 * limit < np.abs(x).max() <= limit, path
      assert len(np.unique(x)) > 0.9 * x.size


def test_the_order_of_targets_means_nothing():
  assert Lora(2, 4.0, ('o', 'q')) == Lora(2, 4.0, ('q', 'o'))
