"""Random keys: one for each episode, from what the episode is and from nothing else."""

import jax
import numpy as np


def episode_keys(
  seed: int,
  step: int,
  problem_ids_B: np.ndarray | jax.Array,
  sample_ids_B: np.ndarray | jax.Array,
) -> jax.Array:
  """One key for each episode, from (seed, step, problem, sample) and nothing else.

  The sampler folds in the turn and the token. So a sample depends neither on its neighbours nor on
  the layout of the batch, the devices or the hosts.

  Args:
    seed: the run's seed.
    step: the training step, or any number that names an evaluation.
    problem_ids_B: i32[B] index of each row's problem in its data set; on the host, or on the
      devices where the rows lie.
    sample_ids_B: i32[B] 0..G-1, which of the problem's samples the row is.

  Returns:
    B typed PRNG keys.

  Example:
    >>> keys = episode_keys(0, 1, np.array([3, 3]), np.array([0, 1]))
    >>> keys.shape
    (2,)
  """
  root = jax.random.fold_in(jax.random.key(seed, impl='threefry2x32'), step)
  return _fold_rows(root, problem_ids_B, sample_ids_B)


@jax.jit
def _fold_rows(root, problem_ids_B, sample_ids_B):
  keys_B = jax.vmap(jax.random.fold_in, (None, 0))(root, problem_ids_B)
  return jax.vmap(jax.random.fold_in)(keys_B, sample_ids_B)
