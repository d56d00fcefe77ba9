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


def test_devices_that_are_not_there_are_no_cpus():
  """4,096 slots at a time on each of four, in rows of 2,625: 1.56 rows of each, rounded up."""
  config = default_config()
  config.model.preset = 'gemma2_2b'
  config.rollout.update(problems_per_step=4, samples_per_problem=8, prompt_tokens=512)
  config.rollout.turn_tokens = (1024, 1024)
  mesh = AbstractMesh((1, 4, 1), MESH.axis_names)
  assert shapes.update_rows(shapes.planned_run(config, mesh, 64)) == 4 * 2
