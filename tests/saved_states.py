"""States as training saves them, and checkpoints of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.runs.checkpoints import Checkpoints

# A read that fails inside Orbax leaves coroutines behind that are collected later.
READS_FAIL = [
  pytest.mark.filterwarnings('ignore:coroutine .* was never awaited:RuntimeWarning'),
  pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning'),
  pytest.mark.usefixtures('collect_what_failed_reads_leave'),
]


def make_state(step):
  """A state with what a train state has: nested dicts, a tuple, counters, flags, bf16."""
  return {
    'trainable': {
      'w': jax.random.normal(jax.random.key(step), (20, 30)),
      'b': (jnp.arange(7) + step).astype(jnp.bfloat16),
    },
    'opt': (jnp.int32(step), {'mu': jnp.full((3, 4), step / 8), 'empty': ()}, None),
    'host': np.arange(5, dtype=np.int64) * step,
    'flag': jnp.array([True, False]),
  }


def abstract(tree):
  return jax.tree.map(
    lambda x: x if isinstance(x, np.ndarray) else jax.ShapeDtypeStruct(x.shape, x.dtype), tree
  )


def assert_same(got, want):
  assert jax.tree.structure(got) == jax.tree.structure(want)
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    assert isinstance(x, np.ndarray) == isinstance(y, np.ndarray) and x.dtype == y.dtype
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def save_all(directory, rewards, **kwargs):
  with Checkpoints(directory, **kwargs) as ckpts:
    for step, reward in rewards.items():
      assert ckpts.save(step, make_state(step), {'position': step * 3}, reward)
