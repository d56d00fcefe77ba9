"""Importance weights in an update: from the sampler's log-probs to the gradient and the metrics."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from score_jax.core.types import Episode, TrainState
from score_jax.objective.stages import Stage, StageArrays
from score_jax.training.packing import pack_episodes
from score_jax.training.train_step import StepOptions, make_train_step

# A policy that looks at the token before alone: hidden states are rows of a table of logits.
V, B, T, CAP = 5, 4, 6, 1.5
STAGE = Stage('rewards alone', (1.0, 2.0), (0.0, 0.0), (0.0, 0.0))


def make_episodes(table):
  """Rows of a prompt token, two answers of two tokens, one between; logp of another sampler."""
  rng = np.random.default_rng(0)
  tokens = rng.integers(V, size=(B, T)).astype(np.int32)
  turn = np.broadcast_to(np.array([0, 1, 1, 0, 2, 2], np.int32), (B, T))
  logp = np.zeros((B, T), np.float32)
  logp[:, 1:] = jax.nn.log_softmax(table)[tokens[:, :-1], tokens[:, 1:]]
  episode = Episode(
    tokens=tokens,
    positions=np.broadcast_to(np.arange(T, dtype=np.int32), (B, T)),
    is_token=np.ones((B, T), bool),
    turn=turn,
    is_sampled=turn > 0,
    sampled_logp=np.where(turn > 0, logp + rng.normal(0, 0.7, (B, T)), 0).astype(np.float32),
    is_truncated=np.zeros((B, 2), bool),
  )
  return episode, rng.integers(2, size=(B, 2)).astype(np.float32), logp


def test_an_update_weighs_each_token():
  table = np.random.default_rng(1).normal(size=(V, V)).astype(np.float32)
  e, reward_BK, logp = make_episodes(table)
  want, weights = np.zeros((V, V)), []
  batch = pack_episodes(e, reward_BK, 2 * T, rows=1)  # two episodes share a row
  for b in range(B):
    for t in np.flatnonzero(e.is_sampled[b]):
      weights.append(min(np.exp(logp[b, t] - e.sampled_logp[b, t]), CAP))
      before, token, k = e.tokens[b, t - 1], e.tokens[b, t], e.turn[b, t] - 1
      slope = np.eye(V)[token] - np.exp(jax.nn.log_softmax(table[before]))
      want[before] += weights[-1] * STAGE.reward_weight[k] * reward_BK[b, k] * slope / B

  def moved(cap):
    step = make_train_step(
      policy=lambda trainable, frozen, e: (trainable['table'][e.tokens], jnp.eye(V)),
      reference=lambda frozen, e: (frozen['table'][e.tokens], jnp.eye(V)),
      optimizer=optax.sgd(1.0),
      options=StepOptions(1, baseline='none', chunk=T, importance_cap=cap),
    )
    params = {'table': jnp.asarray(table)}
    state = TrainState(jnp.int32(0), params, optax.sgd(1.0).init(params))
    new, metrics = step(state, {'table': jnp.asarray(table)}, batch, StageArrays.of(STAGE))
    return new.trainable['table'] - table, metrics

  got, metrics = moved(CAP)
  np.testing.assert_allclose(got, want, atol=1e-5)
  capped = [w == CAP for w in weights]
  assert 0 < sum(capped) < len(weights)
  assert metrics['train/importance_weight'] == pytest.approx(np.mean(weights), rel=1e-5)
  assert metrics['train/importance_capped'] == pytest.approx(np.mean(capped), rel=1e-5)
  # Off, it is another gradient, and there is nothing to report.
  got, metrics = moved(0.0)
  assert np.abs(got - want).max() > 0.01
  assert not [name for name in metrics if 'importance' in name]
