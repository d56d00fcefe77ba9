"""What the compiled update works with grows with the vocabulary by a chunk of logits alone."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
from ml_collections import FrozenConfigDict

from score_jax.core.config import default_config
from score_jax.core.types import Batch
from score_jax.model.decoder import Decoder, abstract_params
from score_jax.model.presets import PRESETS
from score_jax.objective.stages import StageArrays, stage2
from score_jax.planning.shapes import abstract_episode
from score_jax.setup.optimizer import make_optimizer
from score_jax.setup.trainable import first_state
from score_jax.training.train_step import StepOptions
from score_jax.training.update import compiled_step

B, T, CHUNK = 32, 512, 16
VOCABULARIES = (49_152, 256_000)
# Of [B, chunk, V] in float32: both models' log-probabilities, probabilities, and their gradient.
ARRAYS_AT_ONCE = 4


def working_bytes(vocab_size: int) -> int:
  """Temporary bytes of the compiled update at SmolLM2-135M's shape, less the gradients."""
  config = dataclasses.replace(PRESETS['smollm2_135m'], vocab_size=vocab_size, remat='block')
  params = abstract_params(config)[0]
  options = StepOptions(samples_per_problem=4, chunk=CHUNK)
  o = FrozenConfigDict(default_config().optimizer)
  step, optimizer = compiled_step(Decoder(config), None, options, o), make_optimizer(o)
  state = jax.eval_shape(lambda params: first_state(optimizer, params, 0), params)
  reward = jax.ShapeDtypeStruct((B, 2), jnp.float32)
  batch = Batch(episode=abstract_episode(B, T, 2), reward=reward)
  frozen, stage = {'reference': params, 'base': {}}, StageArrays.of(stage2(10.0, 0.01))
  program = step.lower(state, frozen, batch, stage, T).compile()
  gradients = 4 * sum(math.prod(x.shape) for x in jax.tree.leaves(params))
  return program.memory_analysis().temp_size_in_bytes - gradients


@pytest.mark.slow
def test_update_grows_with_the_chunk_alone():
  small, large = map(working_bytes, VOCABULARIES)
  a_chunk = 4 * B * CHUNK * (VOCABULARIES[1] - VOCABULARIES[0])
  assert 0 < large - small <= ARRAYS_AT_ONCE * a_chunk
