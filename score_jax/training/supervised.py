"""Supervised training on traces: next-token cross-entropy on the tokens to imitate."""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from score_jax.core.masked import masked_sum
from score_jax.core.sharding import on_devices
from score_jax.core.types import TrainState
from score_jax.objective.logprobs import token_logp
from score_jax.training.train_step import add_up, apply_gradient


@flax.struct.dataclass
class TraceBatch:
  """Rows of tokens to imitate.

  Attributes:
    tokens: i32[B, T].
    positions: i32[B, T] place in its trace, from 0.
    is_token: bool[B, T] False in holes.
    is_target: bool[B, T] tokens that are trained.
    segment: i32[B, T] as in `score_jax.core.types.PackedRows`, where several traces share a row;
      None where each row is one, left-aligned.
  """

  tokens: jax.Array
  positions: jax.Array
  is_token: jax.Array
  is_target: jax.Array
  segment: jax.Array | None = None


def unpacked(
  tokens_BT: np.ndarray, is_token_BT: np.ndarray, is_target_BT: np.ndarray
) -> TraceBatch:
  """A batch of left-aligned rows, a trace each."""
  positions_BT = np.broadcast_to(np.arange(tokens_BT.shape[1], dtype=np.int32), tokens_BT.shape)
  return TraceBatch(tokens_BT, positions_BT, is_token_BT, is_target_BT)


# From (trainable, frozen, traces) to (hidden_BTD, head), as in `score_jax.training.train_step`.
Policy = Callable[[dict, dict, TraceBatch], tuple[jax.Array, jax.Array]]


def cross_entropy(
  policy: Policy,
  trainable: dict,
  frozen: dict,
  traces: TraceBatch,
  chunk: int = 128,
  num_targets: jax.Array | None = None,
) -> tuple[jax.Array, dict]:
  """Mean negative log-likelihood of the target tokens.

  Args:
    policy: the model as a function.
    trainable: what is trained of it.
    frozen: what is not.
    traces: the batch, or a part of it.
    chunk: query positions whose logits exist at once.
    num_targets: i32[] what sums are divided by, the whole batch's target tokens, so that parts add
      up; None counts those at hand.

  Returns:
    f32[] nats per target token, and metrics.
  """
  hidden_BTD, head = policy(trainable, frozen, traces)
  logp_BT, is_best_BT = token_logp(hidden_BTD[:, :-1], head, traces.tokens[:, 1:], chunk)
  is_target_BT = traces.is_target[:, 1:]
  if num_targets is None:
    num_targets = jnp.maximum(is_target_BT.sum(), 1)
  loss = masked_sum(-logp_BT, is_target_BT) / num_targets
  return loss, {
    'train/loss_nats': loss,
    'train/token_accuracy': masked_sum(is_best_BT.astype(jnp.float32), is_target_BT) / num_targets,
    'train/target_tokens': is_target_BT.sum().astype(jnp.float32),
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
    what is not finite. `traces` are rows [B, T], or packed [N, C, T]
    (`score_jax.training.packing`).
  """

  def step(state: TrainState, frozen: dict, traces: TraceBatch):
    frozen = on_devices(frozen)
    if traces.tokens.ndim == 2:
      traces = jax.tree.map(lambda x: x[:, None], traces)
    num_targets = jnp.maximum(traces.is_target[..., 1:].sum(), 1)

    def loss_of(trainable, part):
      return cross_entropy(policy, trainable, frozen, part, chunk, num_targets)

    grads, loss, metrics = add_up(loss_of, state.trainable, traces)
    new, norms = apply_gradient(optimizer, state, grads, loss)
    metrics |= {key: norms[key] for key in ('train/grad_norm', 'train/is_finite')}
    return new, metrics

  return jax.jit(step, donate_argnums=(0,))
