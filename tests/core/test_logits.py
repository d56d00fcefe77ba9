"""The projection to the vocabulary, capped."""

import jax.numpy as jnp
import numpy as np

from score_jax.core.logits import CappedHead, project


def test_no_logit_is_beyond_the_cap():
  head = jnp.asarray(np.random.default_rng(0).normal(0, 100, (4, 9)), jnp.float32)
  logits = project(jnp.ones((2, 4)), CappedHead(head, 3.0))
  assert logits.shape == (2, 9) and np.abs(logits).max() <= 3.0
  small = project(jnp.ones((2, 4)), CappedHead(head * 1e-6, 3.0))
  np.testing.assert_allclose(small, project(jnp.ones((2, 4)), head * 1e-6), rtol=1e-5)
