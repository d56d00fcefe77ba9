"""Supervised training on traces: next-token cross-entropy on the tokens to imitate."""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax

from score_jax.core.masked import masked_mean, masked_sum
from score_jax.core.sharding import on_devices
from score_jax.core.types import TrainState
from score_jax.objective.logprobs import token_logp
from score_jax.training.train_step import apply_gradient


@flax.struct.dataclass
class TraceBatch:
  """Left-aligned rows of tokens to imitate.

  Attributes:
    tokens: i32[B, T].
    is_token: bool[B, T] False after a row's end.
    is_target: bool[B, T] tokens that are trained.
  """

  tokens: jax.Array
  is_token: jax.Array
  is_target: jax.Array

  @property
  def positions(self) -> jax.Array:
    """i32[B, T]: rows are left-aligned, so a token's slot is its position."""
    return jnp.broadcast_to(jnp.arange(self.tokens.shape[1]), self.tokens.shape)


# From (trainable, frozen, traces) to (hidden_BTD, head), as in `score_jax.training.train_step`.
Policy = Callable[[dict, dict, TraceBatch], tuple[jax.Array, jax.Array]]


def cross_entropy(
  policy: Policy, trainable: dict, frozen: dict, traces: TraceBatch, chunk: int = 128
) -> tuple[jax.Array, dict]:
  """Mean negative log-likelihood of the target tokens.

  Args:
    policy: the model as a function.
    trainable: what is trained of it.
    frozen: what is not.
    traces: the batch.
    chunk: query positions whose logits exist at once.

  Returns:
    f32[] nats per target token, and metrics.
  """
  hidden_BTD, head = policy(trainable, frozen, traces)
  logp_BT, is_best_BT = token_logp(hidden_BTD[:, :-1], head, traces.tokens[:, 1:], chunk)
  is_target_BT = traces.is_target[:, 1:]
  num_targets = jnp.maximum(is_target_BT.sum(), 1)
  loss = masked_sum(-logp_BT, is_target_BT) / num_targets
  return loss, {
    'train/loss_nats': loss,
    'train/token_accuracy': masked_mean(is_best_BT.astype(jnp.float32), is_target_BT),
    'train/target_tokens': num_targets.astype(jnp.float32),
  }


def make_supervised_step(
  policy: Policy, optimizer: optax.GradientTransformation, chunk: int = 128
) -> Callable[[TrainState, dict, TraceBatch], tuple[TrainState, dict]]:
  """Builds the jitted update.

  Args:
    policy: the model as a function.
    optimizer: optax transformation.
    chunk: query positions whose logits exist at once.

  Returns:
    step(state, frozen, traces) -> (state, metrics); `state` is donated; see `apply_gradient` for
    what is not finite.
  """

  def step(state: TrainState, frozen: dict, traces: TraceBatch):
    frozen = on_devices(frozen)
    grads, metrics = jax.grad(
      lambda trainable: cross_entropy(policy, trainable, frozen, traces, chunk), has_aux=True
    )(state.trainable)
    new, norms = apply_gradient(optimizer, state, grads, metrics['train/loss_nats'])
    metrics |= {key: norms[key] for key in ('train/grad_norm', 'train/is_finite')}
    return new, metrics

  return jax.jit(step, donate_argnums=(0,))
