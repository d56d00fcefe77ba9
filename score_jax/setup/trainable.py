"""What a run trains: all weights of the model, or adapters beside the base model's.

`TrainState.trainable` and the checkpoints hold the one or the other, and `Trainable` says which.
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
from score_jax.model.lora import Lora
from score_jax.runs import leaves as leaves_lib
from score_jax.runs.directories import check_run, check_shapes
from score_jax.runs.identity import read_run_config
from score_jax.runs.restoring import RestoredParams, restore_params
from score_jax.setup.base_model import Base, BaseWeights, param_shardings, place_params, reader_of


@dataclasses.dataclass(frozen=True)
class Trainable:
  """What is trained of a model.

  Attributes:
    base: the base model; its weights' shapes are enough for what is only planned.
    lora: the adapters that are trained beside its weights; None trains all weights.
  """

  base: Base | BaseWeights
  lora: Lora | None

  def policy_params(self, trained: dict) -> dict:
    """The parameters that the decoder takes, from what is trained; the same arrays, not copies."""
    return lora_lib.policy_params(self.base.params, trained, self.lora)

  @property
  def frozen_base(self) -> dict:
    """The base model's parameters where an update needs them beside what is trained, else {}."""
    return self.base.params if self.lora else {}

  def shardings(self) -> dict:
    """Where what is trained lies: an adapter as its weight does, and whole along the rank."""
    sizes, mesh = self.base.decoder.config, self.base.mesh
    if self.lora is None:
      return param_shardings(sizes, mesh)
    return sharding.named_shardings(lora_lib.abstract_adapters(sizes, self.lora)[1], mesh)

  def abstract(self) -> dict:
    """Shapes, f32, and places on the devices of what is trained."""
    shapes = self.base.params
    if self.lora is not None:
      shapes = lora_lib.abstract_adapters(self.base.decoder.config, self.lora)[0]
    return jax.tree.map(
      lambda x, place: jax.ShapeDtypeStruct(x.shape, np.float32, sharding=place),
      shapes,
      self.shardings(),
    )

  def abstract_state(
    self, optimizer: optax.GradientTransformation, num_adapted: int = 0
  ) -> TrainState:
    """Shapes and places of a training state: the optimiser's moments lie beside their parameters.

    Args:
      optimizer: optax transformation.
      num_adapted: turns whose KL weights follow a target: K, or 0.

    Returns:
      A TrainState of jax.ShapeDtypeStruct.
    """
    everywhere = jax.sharding.NamedSharding(self.base.mesh, jax.sharding.PartitionSpec())
    of_params = self.shardings()
    shapes = jax.eval_shape(lambda x: first_state(optimizer, x, num_adapted), self.abstract())
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

  def check_start(self, config: ConfigDict) -> None:
    """Makes sure that what the stage starts from fits the model, of which no weight is read.

    Args:
      config: its `init` names the run.

    Raises:
      ValueError: if the path is no run with a checkpoint, or one of another model or other
        adapters.
    """
    path = config.init.path
    if not path:
      return
    theirs = lora_of_run(path)
    if self.lora not in (None, theirs):
      raise ValueError(
        f'config.init.path={path} trained {_told(theirs)}, and this run trains '
        f'{_told(self.lora)}: adapters can only go on from the same adapters'
      )
    check_run(path, 'config.init.path')
    check_trained(path, self.base)

  def read_start(self, config: ConfigDict) -> dict:
    """Reads what the stage starts from.

    Args:
      config: its `init` names the run, its `seed` draws new adapters.

    Returns:
      What is trained, as it is before the first update: of the run `config.init.path`, else the
      base model's own parameters (no copy), else new adapters.

    Raises:
      ValueError: if that run has no good checkpoint, or one of another model or other adapters.
    """
    path, which = config.init.path, config.init.which
    if not path:
      if self.lora is None:
        return self.base.params
      adapters = lora_lib.iter_first_adapters(self.base.decoder.config, self.lora, config.seed)
      return place_params(adapters, self.shardings())
    theirs = Trainable(self.base, lora_of_run(path))
    if theirs.lora == self.lora:
      return self.restore(path, which).params
    self.check_start(config)
    return place_params(theirs.iter_merged(path, which), self.shardings())

  def restore(self, run: epath.PathLike, which: str) -> RestoredParams:
    """Reads what a run trained, adapters only beside the weights that they were trained beside.

    Args:
      run: a run directory, or one of its checkpoints, that trained the same.
      which: 'best' by training reward, or 'latest'.

    Returns:
      Step, and what was trained, on the devices.

    Raises:
      ValueError: if there is no good checkpoint, or one of other shapes or another base model.
    """
    if self.lora is not None:
      check_same_base(run, self.base.params)
    return restore_params(run, self.abstract(), which)

  def iter_merged(self, run: epath.PathLike, which: str):
    """Yields (path, f32 array) of all weights with a run's adapters added; see `restore`.

    They are added up on the host, which rounds alike for every mesh.
    """
    sizes, path = self.base.decoder.config, self.base.path
    check_same_base(run, self.base.params)
    weights = nest(reader_of(path).iter_params(path, sizes, jnp.dtype(sizes.param_dtype)))
    adapters = restore_params(run, step=which).params
    merged = lora_lib.merge(weights, adapters, self.lora)
    for keys, x in jax.tree_util.tree_flatten_with_path(merged)[0]:
      yield leaf_path(keys), np.asarray(x, np.float32)


def check_trained(run: epath.PathLike, base: BaseWeights) -> None:
  """Makes sure that a run trained a model, or adapters beside it; no weight is read.

  Args:
    run: a run directory, or one of its checkpoints.
    base: the model, or its shapes.

  Raises:
    ValueError: with the shapes that differ, or where the mesh does not divide the model.
  """
  check_shapes(run, Trainable(base, lora_of_run(run)).abstract())


def _told(lora: Lora | None) -> str:
  """What is trained, in words."""
  if lora is None:
    return 'all weights'
  return f'adapters of rank {lora.rank} and alpha {lora.alpha:g} on {", ".join(lora.targets)}'


def make_lora(config: ConfigDict) -> Lora | None:
  """Reads which weights get adapters; None where all weights are trained.

  Args:
    config: a config, or what is stored of one, with its part 'lora'.

  Raises:
    ValueError: for targets that there are none of, or a rank below 0.
  """
  o = config.lora
  return Lora(o.rank, float(o.alpha), tuple(o.targets)) if o.rank else None


def lora_of_run(run: epath.PathLike) -> Lora | None:
  """Which adapters a run trained, by its config; None for all weights."""
  config = read_run_config(run)
  return make_lora(ConfigDict(config)) if config and 'lora' in config else None


def first_state(
  optimizer: optax.GradientTransformation, params: dict, num_adapted: int = 0
) -> TrainState:
  """The state before the first update; with the scales of `num_adapted` turns' KL weights."""
  kl_scale = jnp.ones(num_adapted) if num_adapted else None
  return TrainState(jnp.int32(0), params, optimizer.init(params), kl_scale)


def restore_policy(run: str, base: Base, which: str) -> RestoredParams:
  """Reads the trained policy of a run, whatever it trained.

  Args:
    run: a run directory, or one of its checkpoints.
    base: the base model, whose shapes and shardings it must have.
    which: 'best' by training reward, or 'latest'.

  Returns:
    Step, and parameters for the decoder, on the devices.

  Raises:
    ValueError: if there is no good checkpoint, or one of other shapes or another base model.
  """
  trainable = Trainable(base, lora_of_run(run))
  restored = trainable.restore(run, which)
  return RestoredParams(restored.step, trainable.policy_params(restored.params))


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
