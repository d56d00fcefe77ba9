"""What a run trains: all weights of the model, or adapters beside the base model's.

`TrainState.trainable` and the checkpoints hold the one or the other; `policy_params` makes of it
what the decoder takes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from ml_collections import ConfigDict

from score_jax.base_model import Base, param_shardings, place_params
from score_jax.core import sharding
from score_jax.core.types import TrainState
from score_jax.model import lora as lora_lib
from score_jax.model.decoder_config import DecoderConfig
from score_jax.model.lora import Lora
from score_jax.runs.identity import read_run_config
from score_jax.runs.restoring import Restored, restore_subtree


def make_lora(config: ConfigDict) -> Lora | None:
  """Reads which weights get adapters; None where all weights are trained.

  Args:
    config: a config, or the 'lora' part of one that a run was made with.

  Raises:
    ValueError: for targets that there are none of, or a rank below 0.
  """
  o = config.lora
  return Lora(o.rank, float(o.alpha), tuple(o.targets)) if o.rank else None


def policy_params(base_params: dict, trainable: dict, lora: Lora | None) -> dict:
  """The parameters that the decoder takes: what is trained, or that beside the base model's."""
  return trainable if lora is None else lora_lib.join(base_params, trainable, lora)


def abstract_trainable(base: Base, lora: Lora | None) -> dict:
  """Shapes, f32, and places on the devices of what is trained."""
  if lora is None:
    shapes, places = base.params, param_shardings(base.decoder.config, base.mesh)
  else:
    shapes = lora_lib.abstract_adapters(base.decoder.config, lora)[0]
    places = adapter_shardings(base.decoder.config, lora, base.mesh)
  return jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, np.float32, sharding=place), shapes, places
  )


def first_state(optimizer: optax.GradientTransformation, params: dict) -> TrainState:
  """The state before the first update."""
  return TrainState(jnp.int32(0), params, optimizer.init(params))


def abstract_state(
  optimizer: optax.GradientTransformation, trainable: dict, mesh: jax.sharding.Mesh
) -> TrainState:
  """Shapes and places of a training state: the optimiser's moments lie beside their parameters.

  Args:
    optimizer: optax transformation.
    trainable: from `abstract_trainable`.
    mesh: the devices.

  Returns:
    A TrainState of jax.ShapeDtypeStruct.
  """
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  shapes = jax.eval_shape(lambda params: first_state(optimizer, params), trainable)
  of_params = jax.tree.map(lambda x: x.sharding, trainable)
  of_moments = optax.tree.map_params(
    optimizer,
    lambda _, place: place,
    shapes.opt_state,
    of_params,
    transform_non_params=lambda _: everywhere,
  )
  places = TrainState(step=everywhere, trainable=of_params, opt_state=of_moments)
  return jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, places
  )


def adapter_shardings(config: DecoderConfig, lora: Lora, mesh: jax.sharding.Mesh) -> dict:
  """Where each adapter lies: as its weight, and whole along the rank."""
  return sharding.named_shardings(lora_lib.abstract_adapters(config, lora)[1], mesh)


def read_start(config: ConfigDict, base: Base) -> dict:
  """Reads what the stage starts from.

  Args:
    config: a checked config.
    base: the base model.

  Returns:
    What is trained, as it is before the first update: of the run `config.init.path`, else the base
    model's own parameters (no copy), else new adapters.

  Raises:
    ValueError: if that run has no good checkpoint, or one of another model or other adapters.
  """
  lora, path = make_lora(config), config.init.path
  if not path:
    if lora is None:
      return base.params
    sizes = base.decoder.config
    adapters = lora_lib.iter_first_adapters(sizes, lora, config.seed)
    return place_params(adapters, adapter_shardings(sizes, lora, base.mesh))
  theirs = lora_of_run(path)
  if lora is not None and theirs != lora:
    raise ValueError(
      f'config.init.path={path} trained {theirs or "all weights"}, and this run trains {lora}: '
      'adapters can only go on from the same adapters'
    )
  if lora is None:
    return restore_policy(path, base, config.init.which, is_merged=True).state
  return restore_subtree(path, 'trainable', abstract_trainable(base, lora), config.init.which).state


def restore_policy(run: str, base: Base, which: str, is_merged: bool = False) -> Restored:
  """Reads the trained policy of a run.

  Args:
    run: a run directory, or one of its checkpoints.
    base: the base model, whose shapes and shardings it must have.
    which: 'best' by training reward, or 'latest'.
    is_merged: adapters are added to the weights, which makes a copy of those.

  Returns:
    Step, parameters for the decoder on the devices, and metadata.

  Raises:
    ValueError: if there is no good checkpoint, or one of other shapes.
  """
  lora = lora_of_run(run)
  restored = restore_subtree(run, 'trainable', abstract_trainable(base, lora), which)
  if lora is None:
    return restored
  put_together = lora_lib.merge if is_merged else lora_lib.join
  params = put_together(base.params, restored.state, lora)
  return Restored(restored.step, params, restored.metadata)


def lora_of_run(run: epath.PathLike) -> Lora | None:
  """Which adapters a run trained, by its config; None for all weights."""
  config = read_run_config(run)
  return make_lora(ConfigDict(config)) if config and 'lora' in config else None
