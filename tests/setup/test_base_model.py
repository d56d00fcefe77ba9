"""The base model as it lies on the devices: its place and its types."""

import runpy

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.core import sharding
from score_jax.planning import memory
from score_jax.setup import run as setup_run
from score_jax.training import train


def kinds(tree):
  return {x.sharding.memory_kind for x in jax.tree.leaves(tree)}


def types(tree):
  return {x.dtype.name for x in jax.tree.leaves(tree)}


def test_an_offloaded_reference_changes_nothing_but_its_place(tiny_run, tmp_path):
  """And the base model and the first moment are of the types that the config names."""
  states = []
  for is_offloaded in (False, True):
    config = runpy.run_path(str(tiny_run))['get_config']()
    config.model.update(offload_reference=is_offloaded, param_dtype='bfloat16')
    config.optimizer.mu_dtype = 'bfloat16'
    config.train.update(micro_batches=2, num_steps=2)
    setup = setup_run.prepare(config)
    assert kinds(setup.base.params) == {'pinned_host' if is_offloaded else 'device'}
    assert types(setup.base.params) == {'bfloat16'}
    assert (memory.count_memory(setup).base == 0) == is_offloaded
    states.append(train.train(setup, tmp_path / str(is_offloaded)))
  jax.tree.map(np.testing.assert_array_equal, *states)
  assert kinds(states[1]) == {'device'}
  assert types(states[1].trainable) == {'float32'}
  (adam,) = [part for part in states[1].opt_state if hasattr(part, 'mu')]
  assert types(adam.mu) == {'bfloat16'} and types(adam.nu) == {'float32'}


def test_what_is_on_the_devices_is_not_copied():
  x = jnp.ones(3)
  assert sharding.on_devices({'x': x})['x'] is x
  host = jax.device_put(x, x.sharding.with_memory_kind('pinned_host'))
  assert sharding.on_devices(host).sharding.memory_kind == 'device'
