"""The update of a run, built from its config."""

import functools

from ml_collections import ConfigDict, FrozenConfigDict

from score_jax.model.decoder import Decoder
from score_jax.model.lora import Lora, policy_params
from score_jax.setup.optimizer import make_optimizer
from score_jax.training.train_step import StepOptions, forward, make_train_step


@functools.cache
def compiled_step(
  decoder: Decoder, lora: Lora | None, options: StepOptions, optimizer_config: FrozenConfigDict
):
  """Builds the update once for all runs of a process that differ only in their stage."""

  def policy(trainable, frozen, rows):
    return forward(decoder, policy_params(frozen['base'], trainable, lora), rows)

  def reference(frozen, rows):
    return forward(decoder, frozen['reference'], rows)

  return make_train_step(policy, reference, make_optimizer(optimizer_config), options)


def make_step_options(config: ConfigDict) -> StepOptions:
  """Reads the static choices of an update."""
  o = config.objective
  return StepOptions(
    samples_per_problem=config.rollout.samples_per_problem,
    baseline=o.baseline,
    kl_estimator=o.kl_estimator,
    kl_credit=o.kl_credit,
    temperature=config.rollout.temperature,
    chunk=config.train.chunk_tokens,
    importance_cap=o.importance_cap,
  )
