"""A policy: parameters on their devices, and what it takes to sample from them."""

import dataclasses

import jax
from ml_collections import ConfigDict

from score_jax.core import sharding
from score_jax.setup.base_model import Base
from score_jax.setup.trainable import restore_policy


@dataclasses.dataclass(frozen=True)
class Policy:
  """A policy for whoever samples from it or evaluates it.

  Attributes:
    config: budgets, batch and seed.
    base: architecture, tokenizer and devices.
    params: the policy's parameters, on the devices.
    path: where they come from: a run, or the base model.
    step: updates done.
  """

  config: ConfigDict
  base: Base
  params: dict
  path: str
  step: int

  @property
  def mesh(self) -> jax.sharding.Mesh:
    """The devices."""
    return self.base.mesh

  @classmethod
  def of_base(cls, config: ConfigDict, base: Base) -> 'Policy':
    """The base model as a policy, brought to the devices if it lies in the host's memory."""
    return cls(config, base, sharding.on_devices(base.params), base.path, 0)

  @classmethod
  def of_run(cls, config: ConfigDict, base: Base, run: str, which: str) -> 'Policy':
    """Reads the policy that a run trained.

    Args:
      config: of the run, or one that differs from it in how the policy is evaluated.
      base: the run's base model.
      run: a run directory, or one of its checkpoints.
      which: 'best' by training reward, or 'latest'.

    Raises:
      ValueError: if there is no good checkpoint, or one of other shapes or another base model.
    """
    restored = restore_policy(run, base, which)
    return cls(config, base, restored.params, run, restored.step)
