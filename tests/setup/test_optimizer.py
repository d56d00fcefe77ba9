"""The optimiser: its rate by hand, its updates by a loop, what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
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


# No value is its default, and each matters: the gradient of some steps is clipped, moments forget
# fast, epsilon is as large as the gradients, and 20 steps go through warm-up, cosine and its end.
UNUSUAL = dict(
  learning_rate=0.3,
  schedule='cosine',
  warmup_steps=5,
  decay_steps=16,
  b1=0.6,
  b2=0.8,
  eps=0.05,
  weight_decay=0.2,
  clip_norm=0.7,
)


def rounded(x, dtype):
  return np.float64(jnp.asarray(x, dtype))


def plain_adam(o, params, gradients_T):
  """Adam with decoupled weight decay, one number after the other: the parameters of each step."""
  names = sorted(params)
  x = {k: np.float64(params[k]) for k in names}
  m, v = ({k: np.zeros_like(x[k]) for k in names} for _ in range(2))
  found = []
  for t, gradients in enumerate(gradients_T):
    rate = o.learning_rate
    if t < o.warmup_steps:
      rate *= t / o.warmup_steps
    elif o.schedule == 'cosine':
      share = min((t - o.warmup_steps) / (o.decay_steps - o.warmup_steps), 1.0)
      rate *= 0.5 * (1 + np.cos(np.pi * share))
    norm = np.sqrt(sum((np.float64(gradients[k]) ** 2).sum() for k in names))
    shrink = o.clip_norm / norm if o.clip_norm and norm > o.clip_norm else 1.0
    for k in names:
      g = shrink * np.float64(gradients[k])
      m[k] = o.b1 * m[k] + (1 - o.b1) * g
      v[k] = o.b2 * v[k] + (1 - o.b2) * g**2
      step = m[k] / (1 - o.b1 ** (t + 1)) / (np.sqrt(v[k] / (1 - o.b2 ** (t + 1))) + o.eps)
      x[k] = x[k] - rate * (step + o.weight_decay * x[k])
      m[k] = rounded(m[k], o.mu_dtype)
    found.append({k: x[k].copy() for k in names})
  return found


@pytest.mark.parametrize(
  'changes',
  [
    UNUSUAL,
    UNUSUAL | dict(schedule='constant', mu_dtype='bfloat16'),
    UNUSUAL | dict(warmup_steps=0, clip_norm=0.0, weight_decay=0.0),
  ],
)
def test_twenty_updates_are_a_loop(changes):
  o, rng = config_of(**changes), np.random.default_rng(4)
  params = {'a': rng.normal(size=(3, 2)), 'b': rng.normal(size=4)}
  params = {k: np.float32(x) for k, x in params.items()}
  # From 0.1 to 3 times the norm at which clipping begins.
  sizes = 0.7 * np.geomspace(0.1, 3.0, 20)[rng.permutation(20)]
  gradients_T = []
  for size in sizes:
    g = {k: rng.normal(size=x.shape) for k, x in params.items()}
    norm = np.sqrt(sum((x**2).sum() for x in g.values()))
    gradients_T.append({k: np.float32(size * x / norm) for k, x in g.items()})
  optimizer = make_optimizer(o)

  @jax.jit
  def run(params, gradients_T):
    def step(carry, gradients):
      params, state = carry
      updates, state = optimizer.update(gradients, state, params)
      params = optax.apply_updates(params, updates)
      return (params, state), params

    return jax.lax.scan(step, (params, optimizer.init(params)), gradients_T)[1]

  got = run(params, jax.tree.map(lambda *x: np.stack(x), *gradients_T))
  want = jax.tree.map(lambda *x: np.stack(x), *plain_adam(o, params, gradients_T))
  # Of a moment of 8 bits, what is kept of the one before is rounded too.
  atol = 2e-6 if o.mu_dtype == 'float32' else 1e-2
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol), got, want)
  moments = {str(x.dtype) for x in jax.tree.leaves(optimizer.init(params)) if x.ndim}
  assert moments == {'float32', o.mu_dtype}


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
