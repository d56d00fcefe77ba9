"""A run in shapes alone: what it keeps, and its programs compiled, without a weight being there.

The same serves the machine at hand (`score_jax.planning.memory`) and one that is not
(`score_jax.planning.tpu`).
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict, FrozenConfigDict

from score_jax.core import sharding
from score_jax.core.types import Batch, Episode, PackedRows, TrainState
from score_jax.model.decoder import Decoder, abstract_params
from score_jax.model.decoder_config import DecoderConfig
from score_jax.model.lora import put_beside
from score_jax.model.presets import preset
from score_jax.objective.stages import StageArrays
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.programs import lower_programs
from score_jax.rollout.sizes import Sizes
from score_jax.setup.base_model import (
  BaseWeights,
  check_kernel,
  checkpoint_path,
  param_shardings,
  reader_of,
  run_config,
)
from score_jax.setup.checks import check_batch, check_offload
from score_jax.setup.optimizer import make_optimizer
from score_jax.setup.run import PlannedRun, make_stage
from score_jax.setup.trainable import Trainable, make_lora
from score_jax.training.packing import MAX_EPISODES, rows_at_once
from score_jax.training.update import compiled_step, make_step_options


def planned_run(
  config: ConfigDict, mesh: jax.sharding.Mesh, instruction_tokens: int, backend: str = 'tpu'
) -> PlannedRun:
  """Prepares a run without weights, tokenizer, task and data, to be compiled and not run.

  Args:
    config: a checked config; the sizes are those of `config.model.preset`, or of the checkpoint.
    mesh: the devices, which need not be there.
    instruction_tokens: length of each instruction, which a tokenizer would tell.
    backend: of the devices.

  Returns:
    A run whose base model's parameters are jax.ShapeDtypeStruct.

  Raises:
    ValueError: if numbers do not fit each other, or no sizes are named.
  """
  check_batch(config, sharding.batch_rows(mesh))
  check_offload(config)
  m = config.model
  if config.supervised.method:
    raise ValueError(
      f'config.supervised.method={config.supervised.method!r}: this run imitates traces; only the '
      'rollout and the update of RL are planned'
    )
  if config.rollout.base_turn1_share:
    raise ValueError(
      f'config.rollout.base_turn1_share={config.rollout.base_turn1_share}: the rollout of the base '
      'model beside the policy is not planned; plan with 0'
    )
  sizes = run_config(_sizes(config), m, backend)
  check_kernel(sizes, backend)
  places = param_shardings(sizes, mesh)
  if m.offload_reference:
    places = jax.tree.map(lambda place: place.with_memory_kind(sharding.HOST), places)
  params = jax.tree.map(
    lambda x, place: x.update(sharding=place), abstract_params(sizes)[0], places
  )
  turns = tuple(config.rollout.turn_tokens)
  # Ids are of no account for a program's costs.
  followups = ((0,) * instruction_tokens,) * (len(turns) - 1)
  spec = RolloutSpec(config.rollout.prompt_tokens, turns, followups, end_of_turn_ids=(0,))
  trainable = Trainable(BaseWeights(Decoder(sizes), params, mesh), make_lora(config))
  return PlannedRun(config, trainable, make_stage(config), spec)


def _sizes(config: ConfigDict) -> DecoderConfig:
  if config.model.preset:
    return preset(config.model.preset)
  if not config.model.checkpoint:
    raise ValueError(
      'no model to plan for: set --config.model.preset=NAME (score_jax/model/presets.py) or '
      '--config.model.checkpoint=PATH'
    )
  path = checkpoint_path(config)
  return reader_of(path).read_config(path)


def num_rows(run: PlannedRun) -> int:
  """Episodes of a training step."""
  return run.config.rollout.problems_per_step * run.config.rollout.samples_per_problem


def abstract_policy(run: PlannedRun) -> dict:
  """Shapes and places of the decoder's parameters while a run trains."""
  trained = run.trainable.abstract()
  return trained if run.trainable.lora is None else put_beside(run.base.params, trained)


def abstract_update_inputs(run: PlannedRun) -> tuple[TrainState, dict]:
  """Shapes and places of what an update is given and a run keeps.

  Args:
    run: as for `lower_rollout`.

  Returns:
    The training state, and what it reads beside it, in shapes where that is not the base model's
    own arrays.
  """
  state = run.abstract_state(make_optimizer(run.config.optimizer))
  is_base = run.trainable.lora is None and not run.config.init.path
  start = run.base.params if is_base else abstract_policy(run)
  return state, run.frozen(start)


def abstract_episode(rows: int, slots: int, turns: int) -> Episode:
  """Shapes of an episode."""

  def array(dtype, *shape):
    return jax.ShapeDtypeStruct(shape, dtype)

  return Episode(
    tokens=array(jnp.int32, rows, slots),
    positions=array(jnp.int32, rows, slots),
    is_token=array(bool, rows, slots),
    turn=array(jnp.int32, rows, slots),
    is_sampled=array(bool, rows, slots),
    sampled_logp=array(jnp.float32, rows, slots),
    is_truncated=array(bool, rows, turns),
  )


def rollout_sizes(run: PlannedRun) -> Sizes:
  """Static shapes of a rollout of a training step."""
  rows, devices = num_rows(run), sharding.batch_rows(run.mesh)
  return Sizes.of(run.spec, -(-min(run.config.rollout.slots or rows, rows) // devices))


def lower_rollout(run: PlannedRun) -> dict[str, jax.stages.Lowered]:
  """Traces what a rollout of a training step runs, from shapes, to be compiled.

  Args:
    run: of shapes, from `planned_run`, or prepared, from `score_jax.setup.run.prepare`.

  Returns:
    Programs by name, as `lower_programs` describes them. Their parameters are not those that a
    run keeps, but prepared ones beside them.
  """
  params = abstract_policy(run)
  with jax.sharding.set_mesh(run.mesh):
    return lower_programs(run.base.decoder, run.spec, params, rollout_sizes(run), run.mesh)


def compile_update(run: PlannedRun) -> jax.stages.Compiled:
  """Compiles an update of episodes that take all their slots, from shapes.

  Args:
    run: as for `lower_rollout`.

  Returns:
    The program.
  """
  options, optimizer = make_step_options(run.config), FrozenConfigDict(run.config.optimizer)
  step = compiled_step(run.base.decoder, run.trainable.lora, options, optimizer)
  batch = _placed(run.mesh, abstract_batch(run))
  state, frozen = abstract_update_inputs(run)
  stage = jax.eval_shape(lambda: StageArrays.of(run.stage))
  with jax.sharding.set_mesh(run.mesh):
    return step.lower(state, frozen, batch, stage).compile()


def update_rows(run: PlannedRun) -> int:
  """Rows that an update of episodes that take all their slots computes at a time."""
  slots = run.spec.first_slot(run.spec.num_turns)
  return rows_at_once(num_rows(run), slots, run.mesh, run.config.train.micro_batches)


def abstract_batch(run: PlannedRun) -> Batch:
  """Shapes of what an update learns from, in rows of all slots of an episode."""
  B, K, slots = num_rows(run), run.spec.num_turns, run.spec.first_slot(run.spec.num_turns)
  rows = update_rows(run)
  parts = -(-B // rows)

  def array(dtype, *shape):
    return jax.ShapeDtypeStruct(shape, dtype)

  ids, is_token = array(jnp.int32, rows, parts, slots), array(bool, rows, parts, slots)
  logp = array(jnp.float32, rows, parts, slots)
  episode = array(jnp.int32, rows, parts, MAX_EPISODES if parts > 1 else 1)
  packed = PackedRows(ids, ids, is_token, ids, logp, episode, ids if parts > 1 else None)
  return Batch(packed, array(jnp.float32, B, K), array(bool, B, K))


def _placed(mesh: jax.sharding.Mesh, tree):
  """Shapes whose rows are split as a batch's."""
  return jax.tree.map(
    lambda x: x.update(sharding=sharding.batch_sharding(mesh, len(x.shape))), tree
  )
