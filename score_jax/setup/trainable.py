"""What a run trains: all weights of the model, or adapters beside the base model's.

`TrainState.trainable` and the checkpoints hold the one or the other; `policy_params` makes of it
what the decoder takes.
"""

import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from ml_collections import ConfigDict

from score_jax.core import sharding
from score_jax.core.paths import leaf_path, nest
from score_jax.core.types import TrainState
from score_jax.model import lora as lora_lib
from score_jax.model.decoder_config import DecoderConfig
from score_jax.model.lora import Lora
from score_jax.runs import leaves as leaves_lib
from score_jax.runs.identity import read_run_config
from score_jax.runs.restoring import Restored, restore_subtree
from score_jax.setup.base_model import Base, param_shardings, place_params, reader_of


def make_lora(config: ConfigDict) -> Lora | None:
  """Reads which weights get adapters; None where all weights are trained.

  Args:
    config: a config, or what is stored of one, with its part 'lora'.

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
    return jax.tree.map(lambda x: x.update(dtype=np.float32), abstract_base(base))
  shapes = lora_lib.abstract_adapters(base.decoder.config, lora)[0]
  places = adapter_shardings(base.decoder.config, lora, base.mesh)
  return jax.tree.map(lambda x, place: x.update(sharding=place), shapes, places)


def abstract_base(base: Base) -> dict:
  """Shapes, types, and places of the base model's parameters on the devices, wherever they lie."""
  places = param_shardings(base.decoder.config, base.mesh)
  return jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), base.params, places
  )


def first_state(
  optimizer: optax.GradientTransformation, params: dict, num_adapted: int = 0
) -> TrainState:
  """The state before the first update; with the scales of `num_adapted` turns' KL weights."""
  kl_scale = jnp.ones(num_adapted) if num_adapted else None
  return TrainState(jnp.int32(0), params, optimizer.init(params), kl_scale)


def abstract_state(
  optimizer: optax.GradientTransformation,
  trainable: dict,
  mesh: jax.sharding.Mesh,
  num_adapted: int = 0,
) -> TrainState:
  """Shapes and places of a training state: the optimiser's moments lie beside their parameters.

  Args:
    optimizer: optax transformation.
    trainable: from `abstract_trainable`.
    mesh: the devices.
    num_adapted: turns whose KL weights follow a target: K, or 0.

  Returns:
    A TrainState of jax.ShapeDtypeStruct.
  """
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  shapes = jax.eval_shape(lambda params: first_state(optimizer, params, num_adapted), trainable)
  of_params = jax.tree.map(lambda x: x.sharding, trainable)
  of_moments = optax.tree.map_params(
    optimizer,
    lambda _, place: place,
    shapes.opt_state,
    of_params,
    transform_non_params=lambda _: everywhere,
  )
  places = TrainState(
    step=everywhere,
    trainable=of_params,
    opt_state=of_moments,
    kl_scale=everywhere if num_adapted else None,
  )
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
  if theirs is None or lora is not None:
    return _restore(path, base, theirs, config.init.which).state
  # Added up on the host, which rounds alike for every mesh.
  decoder = base.decoder.config
  check_same_base(path, base.params)
  arrays = reader_of(base.path).iter_params(base.path, decoder, jnp.dtype(decoder.param_dtype))
  adapters = restore_subtree(path, 'trainable', step=config.init.which).state
  merged = lora_lib.merge(nest(arrays), adapters, theirs)
  leaves = ((leaf_path(keys), x) for keys, x in jax.tree_util.tree_flatten_with_path(merged)[0])
  return place_params(
    ((path, np.asarray(x, np.float32)) for path, x in leaves), param_shardings(decoder, base.mesh)
  )


def _restore(run: str, base: Base, lora: Lora | None, which: str) -> Restored:
  """Reads what a run trained, adapters only beside the weights that they were trained beside."""
  if lora is not None:
    check_same_base(run, base.params)
  return restore_subtree(run, 'trainable', abstract_trainable(base, lora), which)


def params_checksum(params: dict) -> str:
  """A checksum of parameters, on devices or the host, the same on every mesh."""
  sums = leaves_lib.checksums(leaves_lib.named_leaves(params))
  return hashlib.blake2s(repr(sorted(sums.items())).encode(), digest_size=8).hexdigest()


def check_same_base(run: epath.PathLike, base_params: dict) -> None:
  """Makes sure that adapters are put beside the weights that they were trained beside.

  Args:
    run: a run that trained adapters.
    base_params: of the base model, in the type of the config.

  Raises:
    ValueError: if the run had another base model, or kept it in another type.
  """
  theirs = (read_run_config(run) or {}).get('content', {}).get('base')
  ours = params_checksum(base_params)
  if theirs != ours:
    raise ValueError(
      f'{run} trained adapters beside other weights (checksum {theirs}, here {ours}): set '
      "config.model.checkpoint and config.model.param_dtype to the run's"
    )


def restore_policy(run: str, base: Base, which: str) -> Restored:
  """Reads the trained policy of a run.

  Args:
    run: a run directory, or one of its checkpoints.
    base: the base model, whose shapes and shardings it must have.
    which: 'best' by training reward, or 'latest'.

  Returns:
    Step, parameters for the decoder on the devices, and metadata.

  Raises:
    ValueError: if there is no good checkpoint, or one of other shapes or another base model.
  """
  lora = lora_of_run(run)
  restored = _restore(run, base, lora, which)
  params = policy_params(base.params, restored.state, lora)
  return dataclasses.replace(restored, state=params)


def lora_of_run(run: epath.PathLike) -> Lora | None:
  """Which adapters a run trained, by its config; None for all weights."""
  config = read_run_config(run)
  return make_lora(ConfigDict(config)) if config and 'lora' in config else None
