"""From a config to the values of a run: what an update reads, turns that fit each other."""

import dataclasses

import jax
import pytest
from jax.sharding import AbstractMesh
from small_models import Digits

from score_jax.core.config import default_config
from score_jax.objective.stages import stage2
from score_jax.planning.shapes import planned_run
from score_jax.rollout.layout import RolloutSpec
from score_jax.setup.run import make_rollout_spec, make_stage, make_training_spec


def config_of(**changes):
  config = default_config()
  config.model.preset = 'smollm2_135m'
  config.stage.update(dataclasses.asdict(stage2(10.0, 0.01)) | changes)
  return config


def run_of(config):
  return planned_run(config, AbstractMesh((1, 1, 1), ('data', 'fsdp', 'tensor')), 3)


@pytest.mark.parametrize('rank', [0, 2])
def test_an_update_reads_the_reference_and_what_adapters_lie_beside(rank):
  config = config_of(reference='base')
  config.lora.rank = rank
  run = run_of(config)
  start = {'start': jax.ShapeDtypeStruct((1,), 'float32')}
  assert run.frozen(start)['reference'] is run.base.params
  assert run.frozen(start)['base'] == (run.base.params if rank else {})
  assert run_of(config_of(reference='init')).frozen(start)['reference'] is start


def test_kl_weights_that_follow_a_target_are_part_of_the_state():
  assert run_of(config_of()).num_adapted == 0
  adaptive = run_of(config_of(kl_target_nats=(1.0, 1.0)))
  assert adaptive.num_adapted == 2
  assert make_stage(adaptive.config).kl_target_nats == (1.0, 1.0)


def test_an_episode_is_laid_out_from_config_and_tokenizer():
  """Each turn has its budget, each instruction its place, and any of the ends ends a turn."""
  config = default_config()
  config.rollout.prompt_tokens = 9
  tokenizer = Digits()
  tokenizer.end_of_turn_ids = (9, 8)
  spec = make_rollout_spec(config, ['12', '345'], tokenizer, [3, 5, 4])
  assert spec == RolloutSpec(9, (3, 5, 4), ((1, 2), (3, 4, 5)), (9, 8), top_k=0, top_p=1.0)


def test_as_many_budgets_as_turns():
  config = config_of()
  config.rollout.turn_tokens = (4, 4, 4)
  with pytest.raises(ValueError, match=r'\(4, 4, 4\) has 3 turns, config.stage.* has 2'):
    make_training_spec(config, None, None)
