"""The optimiser: its rate by hand, what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.core.config import default_config
from score_jax.setup.optimizer import make_optimizer


def config_of(**changes):
  config = default_config().optimizer
  config.update(changes)
  return config


def test_the_rate_of_each_step():
  """Adam moves by the rate itself where the gradient stays the same: 4 steps up, a cosine down."""
  optimizer = make_optimizer(
    config_of(schedule='cosine', learning_rate=0.5, warmup_steps=4, decay_steps=8, eps=1e-12)
  )

  @jax.jit
  def moves(gradients_T):
    def step(state, gradient):
      update, state = optimizer.update(gradient, state, jnp.float32(0))
      return state, update

    return jax.lax.scan(step, optimizer.init(jnp.float32(0)), gradients_T)[1]

  up = [0.0, 0.125, 0.25, 0.375]
  down = [0.25 * (1 + np.cos(np.pi * t / 4)) for t in range(5)]
  np.testing.assert_allclose(-moves(jnp.full(9, 3.0)), [*up, *down], atol=1e-5)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'schedule': 'linear'}, "schedule='linear' is neither 'constant' nor 'cosine'"),
    ({'mu_dtype': 'float16'}, "mu_dtype='float16' is neither 'float32' nor 'bfloat16'"),
    (
      {'schedule': 'cosine', 'decay_steps': 5, 'warmup_steps': 5},
      'decay_steps=5 must be above warmup_steps=5',
    ),
  ],
)
def test_what_is_refused(changes, message):
  with pytest.raises(ValueError, match=f'config.optimizer.{message}'):
    make_optimizer(config_of(**changes))
