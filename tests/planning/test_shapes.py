"""Runs of shapes: what is made of a config without weights, and what is refused."""

import pytest
from jax.sharding import AbstractMesh

from score_jax.core.config import default_config
from score_jax.planning import shapes

MESH = AbstractMesh((1, 1, 1), ('data', 'fsdp', 'tensor'))


def test_a_planned_run_refuses_what_it_cannot_plan():
  config = default_config()
  with pytest.raises(ValueError, match='set --config.model.preset=NAME'):
    shapes.planned_run(config, MESH, 3)
  config.model.preset = 'smollm2_135m'
  config.rollout.base_turn1_share = 0.5
  with pytest.raises(ValueError, match='base_turn1_share=0.5'):
    shapes.planned_run(config, MESH, 3)
  config.rollout.base_turn1_share = 0.0
  run = shapes.planned_run(config, MESH, 3)
  assert run.spec.first_slot(2) == 16 + 16 + 4 + 16


def test_a_run_that_samples_no_episodes_is_not_planned():
  config = default_config()
  config.model.preset, config.supervised.method = 'gemma2_2b', 'star'
  with pytest.raises(ValueError, match="config.supervised.method='star': this run imitates"):
    shapes.planned_run(config, MESH, 3)
