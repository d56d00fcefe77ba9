"""Supervised training on given answers: next-token cross-entropy on masked tokens."""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax

from score_jax.core.logits import project
from score_jax.core.masked import masked_mean, masked_sum
from score_jax.core.types import TrainState
from score_jax.model.attention import causal_mask
from score_jax.model.decoder import Decoder


@flax.struct.dataclass
class Traces:
  """Left-aligned rows of tokens to imitate.

  Attributes:
    tokens: i32[B, T].
    is_token: bool[B, T] False after a row's end.
    is_target: bool[B, T] tokens that are trained.
  """

  tokens: jax.Array
  is_token: jax.Array
  is_target: jax.Array


def cross_entropy(decoder: Decoder, params: dict, traces: Traces) -> tuple[jax.Array, dict]:
  """Mean negative log-likelihood of the target tokens.

  Args:
    decoder: the model.
    params: its parameters.
    traces: the batch.

  Returns:
    f32[] nats per target token, and metrics.
  """
  B, T = traces.tokens.shape
  positions_BT = jnp.broadcast_to(jnp.arange(T), (B, T))
  mask_BTT = causal_mask(positions_BT, positions_BT, traces.is_token)
  hidden_BTD, head, _ = decoder.apply({'params': params}, traces.tokens, positions_BT, mask_BTT)
  logits_BTV = project(hidden_BTD[:, :-1], head)
  targets_BT = traces.tokens[:, 1:]
  nll_BT = optax.softmax_cross_entropy_with_integer_labels(logits_BTV, targets_BT)
  is_target_BT = traces.is_target[:, 1:]
  num_targets = jnp.maximum(is_target_BT.sum(), 1)
  loss = masked_sum(nll_BT, is_target_BT) / num_targets
  is_right_BT = (jnp.argmax(logits_BTV, axis=-1) == targets_BT).astype(jnp.float32)
  return loss, {
    'train/loss_nats': loss,
    'train/token_accuracy': masked_mean(is_right_BT, is_target_BT),
    'train/target_tokens': num_targets.astype(jnp.float32),
  }


def make_supervised_step(
  decoder: Decoder, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Traces], tuple[TrainState, dict]]:
  """Builds the jitted update.

  Args:
    decoder: the model.
    optimizer: optax transformation.

  Returns:
    step(state, traces) -> (state, metrics); `state` is donated.
  """

  def step(state: TrainState, traces: Traces):
    grads, metrics = jax.grad(lambda params: cross_entropy(decoder, params, traces), has_aux=True)(
      state.trainable
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.trainable)
    trainable = optax.apply_updates(state.trainable, updates)
    metrics['train/grad_norm'] = optax.tree.norm(grads)
    return TrainState(step=state.step + 1, trainable=trainable, opt_state=opt_state), metrics

  return jax.jit(step, donate_argnums=(0,))
