"""A policy is the base model's, or what a run trained from it."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from small_models import BASE_MODEL, random_params, write_base_model

from score_jax.core.config import default_config
from score_jax.core.sharding import make_mesh
from score_jax.runs.checkpoints import Checkpoints
from score_jax.setup.base_model import load_base
from score_jax.setup.policy import Policy
from score_jax.setup.trainable import Trainable


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  folder = tmp_path_factory.mktemp('base')
  write_base_model(folder)
  config = default_config()
  config.model.checkpoint = str(folder)
  return config


@pytest.fixture(scope='module')
def base(config):
  return load_base(config, make_mesh((1, 1, 1), jax.devices()[:1]))


def assert_same(got, want):
  assert {x.sharding.memory_kind for x in jax.tree.leaves(got)} == {'device'}
  jax.tree.map(np.testing.assert_array_equal, got, want)


def test_the_base_model_is_a_policy_wherever_it_lies(config, base):
  policy = Policy.of_base(config, base)
  assert (policy.path, policy.step, policy.mesh) == (config.model.checkpoint, 0, base.mesh)
  assert_same(policy.params, base.params)
  host = jax.tree.map(
    lambda x: jax.device_put(x, x.sharding.with_memory_kind('pinned_host')), base.params
  )
  assert_same(Policy.of_base(config, dataclasses.replace(base, params=host)).params, base.params)


def test_a_run_is_a_policy_at_its_best_or_latest_step(config, base, tmp_path):
  (tmp_path / 'config.json').write_text(config.to_json())
  trained = {step: random_params(BASE_MODEL, step) for step in (1, 2)}
  with Checkpoints(tmp_path / 'checkpoints') as checkpoints:
    for step, reward in ((1, 0.9), (2, 0.1)):
      checkpoints.save(step, {'trainable': trained[step]}, metadata={}, reward=reward)
      checkpoints.wait()
  for which, step in (('best', 1), ('latest', 2)):
    policy = Policy.of_run(config, base, str(tmp_path), which)
    assert (policy.path, policy.step) == (str(tmp_path), step)
    assert_same(policy.params, trained[step])
  with pytest.raises(ValueError, match='no such file or directory'):
    Policy.of_run(config, base, str(tmp_path / 'nowhere'), 'best')
  # Neither an evaluation nor a next stage takes another one where that is lost.
  following = config.copy_and_resolve_references()
  following.init.path = str(tmp_path)
  shutil.rmtree(tmp_path / 'checkpoints' / '1')
  for read in (
    lambda: Policy.of_run(config, base, str(tmp_path), 'best'),
    lambda: Trainable(base, None).read_start(following),
  ):
    with pytest.raises(ValueError, match='(?s)of step 1, is missing: .*config.init.which=latest'):
      read()
  following.init.which = 'latest'
  assert_same(Trainable(base, None).read_start(following), trained[2])
  assert Policy.of_run(config, base, str(tmp_path / 'checkpoints' / '2'), 'best').step == 2
