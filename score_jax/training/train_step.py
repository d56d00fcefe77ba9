"""One update, in four steps:

1. Rewards become shaped rewards of each turn, and advantages over each problem's samples.
2. Policy and frozen reference score the same tokens, in one forward pass for all turns.
3. The loss is summed over tokens, divided once by the declared normaliser; parts of the rows, one
   after the other, add up.
4. The gradient is clipped and applied; one that is not finite changes nothing. The metrics say
   whether it and the parameters after it are finite.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from score_jax.core.sharding import on_devices
from score_jax.core.types import Batch, Episode, PackedRows, TrainState, turn_masks
from score_jax.model.attention import causal_mask
from score_jax.model.decoder import Decoder
from score_jax.objective.advantages import advantages, check_baseline, shape_rewards
from score_jax.objective.logprobs import score_tokens
from score_jax.objective.loss import check_kl_choice, importance_weights, policy_loss, turn_sums
from score_jax.objective.stages import StageArrays, adapt_kl
from score_jax.training.batch_metrics import batch_metrics

# From (trainable, frozen, rows) to (hidden_BTD, head). The reference is such a function too, of
# (frozen, rows): so adapters and shared weights need no change here.
Policy = Callable[[dict, dict, PackedRows], tuple[jax.Array, jax.Array]]
Reference = Callable[[dict, PackedRows], tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class StepOptions:
  """The static choices of an update.

  Attributes:
    samples_per_problem: G.
    baseline: see `score_jax.objective.advantages.BASELINES`.
    kl_estimator: see `score_jax.objective.loss.KL_ESTIMATORS`.
    kl_credit: see `score_jax.objective.loss.KL_CREDITS`.
    temperature: that of the sampler.
    chunk: query positions whose logits exist at once.
    importance_cap: see `score_jax.objective.loss.importance_weights`; 0 is none.
  """

  samples_per_problem: int
  baseline: str = 'rloo'
  kl_estimator: str = 'exact'
  kl_credit: str = 'turn'
  temperature: float = 1.0
  chunk: int = 128
  importance_cap: float = 0.0

  def __post_init__(self):
    check_kl_choice(self.kl_estimator, self.kl_credit)
    check_baseline(self.baseline, self.samples_per_problem)
    if self.temperature <= 0:
      raise ValueError(f'config.rollout.temperature={self.temperature} must be above 0 to train')


def forward(decoder: Decoder, params: dict, rows: Episode | PackedRows):
  """Runs the model over whole rows.

  Args:
    decoder: the model.
    params: its parameters.
    rows: B rows of T slots: packed, or of an episode each; with holes between tokens only where the
      decoder's attention is 'plain' (`score_jax.model.kernels`).

  Returns:
    hidden_BTD and the head.
  """
  mask = rows.segment
  if decoder.config.attention == 'plain':
    mask = causal_mask(rows.positions, rows.positions, rows.is_token)
    if rows.segment is not None:
      mask &= rows.segment[:, :, None] == rows.segment[:, None]
  hidden_BTD, head, _ = decoder.apply({'params': params}, rows.tokens, rows.positions, mask)
  return hidden_BTD, head


def score_episode(policy_out, reference_out, rows: Episode | PackedRows, options: StepOptions):
  """Scores the tokens of compacted or packed rows: the state before a token predicts it.

  Args:
    policy_out, reference_out: (hidden_BTD, head) of each.
    rows: such that the token before lies one slot to the left.
    options: temperature and chunk are read.

  Returns:
    TokenScores of [B, T - 1], for tokens 1 to T - 1.
  """
  return score_tokens(
    policy_out[0][:, :-1],
    policy_out[1],
    reference_out[0][:, :-1],
    reference_out[1],
    rows.tokens[:, 1:],
    options.temperature,
    options.chunk,
  )


def make_train_step(
  policy: Policy,
  reference: Reference,
  optimizer: optax.GradientTransformation,
  options: StepOptions,
):
  """Builds the jitted update.

  Args:
    policy: the trained model as a function.
    reference: the frozen model as a function.
    optimizer: optax transformation, clipping included.
    options: static choices.

  Returns:
    step(state, frozen, batch, stage_arrays) -> (state, metrics); `state` is donated, `batch` comes
    from `score_jax.training.packing`. `metrics` are f32 scalars; see `apply_gradient` for what is
    not finite.
  """

  def step(state: TrainState, frozen: dict, batch: Batch, stage: StageArrays):
    # An offloaded reference comes to the device once, not for each part.
    frozen = on_devices(frozen)
    B, K = batch.reward.shape
    if state.kl_scale is not None:
      stage = stage.replace(kl_weight=stage.kl_weight * state.kl_scale)

    # 1. Rewards become shaped rewards and advantages.
    shaped_BK = shape_rewards(batch.reward, stage.reward_weight, stage.bonus, stage.discount)
    adv_BK = advantages(
      shaped_BK, batch.reward, stage.bonus, options.samples_per_problem, options.baseline
    )

    def loss_of(trainable, rows: PackedRows):
      # 2. Policy and frozen reference score the same tokens.
      scores = score_episode(
        policy(trainable, frozen, rows), reference(frozen, rows), rows, options
      )
      # 3. The loss: a sum over tokens, divided once, so that parts add up. A row of S episodes of K
      # turns is one of S * K turns.
      N, S = rows.episode.shape
      mask_NKT = turn_masks(rows, S * K)[..., 1:]
      adv_NSK = adv_BK.at[rows.episode].get(mode='fill', fill_value=0.0)
      turns = (adv_NSK.reshape(N, S * K), jnp.tile(stage.kl_weight, S), float(B))
      weight_NT = importance_weights(scores.logp, rows.sampled_logp[:, 1:], options.importance_cap)
      choice = options.kl_estimator, options.kl_credit, weight_NT
      loss = policy_loss(scores, mask_NKT, *turns, *choice)
      sums = jax.lax.stop_gradient(_token_sums(scores, mask_NKT, rows))
      if options.importance_cap:
        sums['weight'] = turn_sums(weight_NT, mask_NKT)
        sums['capped'] = turn_sums(1.0 * (weight_NT >= options.importance_cap), mask_NKT)
      return loss, {
        name: jnp.zeros((B, K)).at[rows.episode].set(x.reshape(N, S, K), mode='drop')
        for name, x in sums.items()
      }

    grads, loss, sums = add_up(loss_of, state.trainable, batch.rows)

    # 4. The gradient is clipped and applied, where it is finite.
    kl_scale = state.kl_scale
    if kl_scale is not None:
      kl_scale = adapt_kl(kl_scale, sums['kl'], sums['tokens'] > 0, stage.kl_target)
    new, norms = apply_gradient(optimizer, state, grads, loss, kl_scale=kl_scale)

    metrics = batch_metrics(batch, shaped_BK, adv_BK, sums, options.samples_per_problem)
    slots = batch.rows.is_token[:, 0].size * _num_filled(batch.rows)
    metrics |= {'train/loss': loss, 'train/slots_per_token': slots / batch.rows.is_token.sum()}
    metrics |= norms
    metrics |= {f'train/kl_weight_t{k + 1}': w for k, w in enumerate(stage.kl_weight)}
    return new, metrics

  return jax.jit(step, donate_argnums=(0,))


def add_up(loss_of, trainable: dict, rows):
  """Adds up loss and gradient over the parts of a batch, one after the other.

  Args:
    loss_of: (trainable, rows of a part) -> (loss, a tree of what else adds up).
    trainable: what the gradient is of.
    rows: arrays [N, C, ...], `is_token` among them; parts without tokens come last, and cost
      nothing.

  Returns:
    Gradient, loss, and the tree.
  """

  def part(c):
    own = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, c, 1, keepdims=False), rows)
    (loss, others), grads = jax.value_and_grad(loss_of, has_aux=True)(trainable, own)
    return grads, loss, others

  num_parts = rows.is_token.shape[1]
  if num_parts == 1:
    return part(0)
  num_filled = _num_filled(rows)
  _, total = jax.lax.while_loop(
    # The number that is known at compile time tells a plan how often the loop runs at most.
    lambda carry: (carry[0] < num_parts) & (carry[0] < num_filled),
    lambda carry: (carry[0] + 1, jax.tree.map(jnp.add, carry[1], part(carry[0]))),
    (0, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(part, 0))),
  )
  return total


def _num_filled(rows) -> jax.Array:
  """Parts that have tokens."""
  return rows.is_token.any(axis=(0, 2)).sum()


def apply_gradient(
  optimizer: optax.GradientTransformation,
  state: TrainState,
  grads: dict,
  loss: jax.Array,
  **changes,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """The state after an update; that before it, where loss or gradient is not finite.

  A finite gradient can still leave parameters that are not, by too high a learning rate:
  `train/is_finite` is 0 then too, and the state is not fit to be saved. Moments that are not finite
  come of a gradient whose norm is not, or show in the parameters after the next update.

  Args:
    optimizer: optax transformation, clipping included.
    state: before the update.
    grads: the gradient.
    loss: f32[].
    **changes: other fields of the state after the update.

  Returns:
    The state, and `train/grad_norm`, `train/update_norm`, `train/is_finite`.
  """
  grad_norm = optax.tree.norm(grads)
  is_applied = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
  updates, opt_state = optimizer.update(grads, state.opt_state, state.trainable)
  trainable = optax.apply_updates(state.trainable, updates)
  new = state.replace(step=state.step + 1, trainable=trainable, opt_state=opt_state, **changes)
  new = jax.tree.map(lambda n, o: jnp.where(is_applied, n, o), new, state)
  are_finite = [jnp.isfinite(x).all() for x in jax.tree.leaves(new.trainable)]
  return new, {
    'train/grad_norm': grad_norm,
    'train/update_norm': jnp.where(is_applied, optax.tree.norm(updates), 0.0),
    'train/is_finite': (is_applied & jnp.stack(are_finite).all()).astype(jnp.float32),
  }


def _token_sums(scores, mask_NKT, rows: PackedRows) -> dict:
  """Sums over the tokens of each turn, f32[N, S * K], small enough to keep for every episode."""
  gap_NT = jnp.abs(scores.logp - rows.sampled_logp[:, 1:])
  return {
    'kl': turn_sums(scores.kl, mask_NKT),
    'entropy': turn_sums(scores.entropy, mask_NKT),
    'tokens': mask_NKT.sum(axis=-1).astype(jnp.float32),
    'gap_max': jnp.where(mask_NKT, gap_NT[:, None], 0.0).max(axis=-1),
    'gap_sum': turn_sums(gap_NT, mask_NKT),
  }
