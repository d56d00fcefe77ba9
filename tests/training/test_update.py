"""The update of a run: what of its config is refused, and when it is built anew."""

import dataclasses

import pytest
from ml_collections import FrozenConfigDict
from small_models import tiny_decoder

from score_jax.core.config import default_config
from score_jax.core.config_check import check_config
from score_jax.model.decoder import Decoder
from score_jax.training.update import compiled_step, make_step_options


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('train.checkpoint_every_steps', 0, 'must be at least 1'),
    ('eval.batch', 0, 'must be at least 1'),
    ('objective.baseline', 'mean', 'baseline'),
    ('objective.kl_estimator', 'k1', 'zero expected gradient'),
    ('rollout.temperature', 0.0, 'temperature'),
    ('rollout.samples_per_problem', 1, 'samples_per_problem=1'),
  ],
)
def test_numbers_that_cannot_work_are_refused_before_anything_runs(key, value, message):
  config = default_config()
  with config.unlocked():
    config.update_from_flattened_dict({key: value})
  with pytest.raises(ValueError, match=message):
    check_config(config)
    make_step_options(config)


def test_runs_that_differ_in_their_stage_share_an_update():
  """Stages are arrays: only the model, the options and the optimiser make another program."""
  config = default_config()
  options = make_step_options(config)

  def step_of(options, **optimizer):
    config.optimizer.update(optimizer)
    return compiled_step(Decoder(tiny_decoder()), None, options, FrozenConfigDict(config.optimizer))

  step = step_of(options)
  config.stage.kl_weight = (0.5, 0.5)
  assert step_of(make_step_options(config)) is step
  assert step_of(dataclasses.replace(options, baseline='none')) is not step
  assert step_of(options, learning_rate=0.1) is not step
