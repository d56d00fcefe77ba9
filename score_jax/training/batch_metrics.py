"""What an update says of its batch: rewards, lengths, KL, how answers change between turns."""

import jax
import jax.numpy as jnp

from score_jax.core.masked import masked_max, masked_mean
from score_jax.core.types import Batch


def batch_metrics(
  batch: Batch, shaped_BK: jax.Array, adv_BK: jax.Array, sums: dict, samples_per_problem: int
) -> dict[str, jax.Array]:
  """Summarises one batch.

  Args:
    batch: B episodes, problem-major.
    shaped_BK: f32[B, K] shaped rewards.
    adv_BK: f32[B, K].
    sums: of each episode and turn, f32[B, K]: 'kl', 'entropy', 'tokens', 'gap_max', 'gap_sum';
      'weight' and 'capped' if weighed.
    samples_per_problem: G.

  Returns:
    f32 scalars. Lengths in tokens, KL in nats per turn, entropy in nats per token, each over the
    rows that sampled the turn; shares as fractions. `train/mixed_tK` is the share of problems whose
    samples differ in reward at turn K: only those teach. `train/c2i_t12` is right at turn 1 and
    wrong at turn 2, and so on. `train/e_minus_t12`, `train/e_plus_t12` and
    `train/i2c_truncated_t12` are shares of right first answers, wrong ones and corrections, see
    `score_jax.analysis.statistics.summarise`; 0 where their denominator is.
  """
  reward_BK, tokens_BK = batch.reward, sums['tokens']
  B, K = reward_BK.shape
  reward_PGK = reward_BK.reshape(B // samples_per_problem, samples_per_problem, K)
  is_mixed_PK = (reward_PGK.max(axis=1) != reward_PGK.min(axis=1)).astype(jnp.float32)
  metrics = {}
  for k in range(K):
    has_tokens_B = tokens_BK[:, k] > 0
    entropy_B = sums['entropy'][:, k] / jnp.maximum(tokens_BK[:, k], 1)
    metrics |= {
      f'train/reward_t{k + 1}': reward_BK[:, k].mean(),
      f'train/shaped_t{k + 1}': shaped_BK[:, k].mean(),
      f'train/adv_std_t{k + 1}': adv_BK[:, k].std(),
      f'train/mixed_t{k + 1}': is_mixed_PK[:, k].mean(),
      f'train/kl_t{k + 1}_nats': masked_mean(sums['kl'][:, k], has_tokens_B),
      f'train/entropy_t{k + 1}_nats': masked_mean(entropy_B, has_tokens_B),
      f'train/length_t{k + 1}_tokens': masked_mean(tokens_BK[:, k], has_tokens_B),
      f'train/truncated_t{k + 1}': batch.is_truncated[:, k].astype(jnp.float32).mean(),
    }
  for k in range(1, K):
    before_B, now_B = reward_BK[:, k - 1], reward_BK[:, k]
    pair = f't{k}{k + 1}'
    metrics |= {
      f'train/c2c_{pair}': (before_B * now_B).mean(),
      f'train/c2i_{pair}': (before_B * (1 - now_B)).mean(),
      f'train/i2c_{pair}': ((1 - before_B) * now_B).mean(),
      f'train/i2i_{pair}': ((1 - before_B) * (1 - now_B)).mean(),
    }
    was_right_B, was_cut_B = before_B > 0, batch.is_truncated[:, k - 1]
    for name, x_B, counts_B in (
      ('e_minus', 1 - now_B, was_right_B),
      ('e_plus', 1 - now_B, ~was_right_B),
      ('i2c_truncated', was_cut_B.astype(jnp.float32), ~was_right_B & (now_B > 0)),
    ):
      metrics[f'train/{name}_{pair}'] = masked_mean(x_B, counts_B)
      metrics[f'train/{name}_denominator_{pair}'] = counts_B.sum().astype(jnp.float32)
  num_tokens = jnp.maximum(tokens_BK.sum(), 1)
  for name in sums.keys() & {'weight', 'capped'}:
    metrics[f'train/importance_{name}'] = sums[name].sum() / num_tokens
  return metrics | {
    'train/reward_sum': reward_BK.sum(axis=1).mean(),
    'train/logp_gap_max_nats': masked_max(sums['gap_max'], tokens_BK > 0),
    'train/logp_gap_mean_nats': sums['gap_sum'].sum() / num_tokens,
  }
