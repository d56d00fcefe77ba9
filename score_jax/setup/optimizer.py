"""From a config to the optimiser."""

import optax
from ml_collections import ConfigDict


def make_optimizer(o: ConfigDict) -> optax.GradientTransformation:
  """Builds the optimiser: clip, Adam, decoupled weight decay, schedule.

  Args:
    o: the `optimizer` part of a checked config.

  Returns:
    The optax transformation.

  Raises:
    ValueError: for an unknown schedule or type.
  """
  if o.schedule not in ('constant', 'cosine'):
    raise ValueError(f"config.optimizer.schedule={o.schedule!r} is neither 'constant' nor 'cosine'")
  if o.mu_dtype not in ('float32', 'bfloat16'):
    raise ValueError(
      f"config.optimizer.mu_dtype={o.mu_dtype!r} is neither 'float32' nor 'bfloat16'"
    )
  rate = optax.constant_schedule(o.learning_rate)
  if o.schedule == 'cosine':
    if o.decay_steps <= o.warmup_steps:
      raise ValueError(
        f'config.optimizer.decay_steps={o.decay_steps} must be above warmup_steps={o.warmup_steps}'
      )
    rate = optax.cosine_decay_schedule(o.learning_rate, o.decay_steps - o.warmup_steps)
  if o.warmup_steps:
    warmup = optax.linear_schedule(0.0, o.learning_rate, o.warmup_steps)
    rate = optax.join_schedules([warmup, rate], [o.warmup_steps])
  parts = [optax.clip_by_global_norm(o.clip_norm)] if o.clip_norm else []
  # Only the first moment may be rounded: the second moves by 1 - b2 = 0.001 of itself in a step,
  # less than bfloat16 resolves.
  parts.append(optax.scale_by_adam(b1=o.b1, b2=o.b2, eps=o.eps, mu_dtype=o.mu_dtype))
  if o.weight_decay:
    parts.append(optax.add_decayed_weights(o.weight_decay))
  return optax.chain(*parts, optax.scale_by_learning_rate(rate))
