"""The metrics of a batch, against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.core.types import Batch
from score_jax.training.batch_metrics import batch_metrics

G = 4


def test_batch_metrics_are_the_loops():
  rng = np.random.default_rng(0)
  is_truncated = rng.integers(0, 2, (8, 2)).astype(bool)
  reward = rng.integers(0, 2, (8, 2)).astype(np.float32)
  reward[:4, 0] = 1.0  # problem 1 teaches nothing at turn 1
  reward[4:, 0] = [0, 1, 0, 0]
  shaped, adv = rng.normal(size=(2, 8, 2)).astype(np.float32)
  tokens = rng.integers(1, 5, (8, 2)).astype(np.float32)
  tokens[3, 1] = 0.0  # an empty turn has no entropy to count
  sums = {
    'kl': rng.random((8, 2), np.float32),
    'entropy': rng.random((8, 2), np.float32),
    'tokens': tokens,
    'gap_max': rng.random((8, 2), np.float32) * (tokens > 0),
    'gap_sum': rng.random((8, 2), np.float32) * (tokens > 0),
  }
  batch = Batch(rows=None, reward=jnp.asarray(reward), is_truncated=jnp.asarray(is_truncated))
  sums_on_device = jax.tree.map(jnp.asarray, sums)
  summarise = jax.jit(batch_metrics, static_argnums=4)
  m = summarise(batch, jnp.asarray(shaped), jnp.asarray(adv), sums_on_device, G)
  want = {'train/mixed_t1': 0.5, 'train/reward_sum': reward.sum() / 8}
  table = {'c2c': 0, 'c2i': 0, 'i2c': 0, 'i2i': 0}
  for r1, r2 in reward:
    table[('c' if r1 else 'i') + '2' + ('c' if r2 else 'i')] += 1 / 8
  want |= {f'train/{name}_t12': share for name, share in table.items()}
  right = [now for before, now in reward if before]
  wrong = [now for before, now in reward if not before]
  cut = [is_truncated[b, 0] for b in range(8) if reward[b, 0] < reward[b, 1]]
  assert right and wrong and cut
  want['train/e_minus_t12'] = right.count(0) / len(right)
  want['train/e_plus_t12'] = wrong.count(0) / len(wrong)
  want['train/i2c_truncated_t12'] = sum(cut) / len(cut)
  for name, counted in {'e_minus': right, 'e_plus': wrong, 'i2c_truncated': cut}.items():
    want[f'train/{name}_denominator_t12'] = len(counted)
  rows = [0, 1, 2, 4, 5, 6, 7]
  want['train/entropy_t2_nats'] = np.mean([sums['entropy'][b, 1] / tokens[b, 1] for b in rows])
  want['train/logp_gap_max_nats'] = sums['gap_max'].max()
  want['train/logp_gap_mean_nats'] = sums['gap_sum'].sum() / tokens.sum()
  want['train/truncated_t1'] = is_truncated[:, 0].mean()
  want['train/shaped_t2'] = shaped[:, 1].mean()
  want['train/adv_std_t2'] = adv[:, 1].std()
  for name, value in want.items():
    np.testing.assert_allclose(m[name], value, rtol=1e-5, err_msg=name)
  assert sum(float(m[f'train/{name}_t12']) for name in table) == pytest.approx(1.0)
  # Of no wrong answer and no correction: 0, as every mean of nothing.
  batch = batch.replace(reward=jnp.ones((8, 2)))
  m = summarise(batch, jnp.asarray(shaped), jnp.asarray(adv), sums_on_device, G)
  for name in ('e_minus', 'e_plus', 'i2c_truncated'):
    assert float(m[f'train/{name}_t12']) == 0, name
    assert float(m[f'train/{name}_denominator_t12']) == (8 if name == 'e_minus' else 0)
