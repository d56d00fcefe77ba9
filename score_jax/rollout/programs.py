"""The programs of a rollout made from shapes, without a weight being there."""

import jax
import jax.numpy as jnp

from score_jax.core.sharding import batch_rows, batch_sharding
from score_jax.model.decode_params import decoding_params, unrolled
from score_jax.model.decoder import Decoder
from score_jax.rollout.generation import Draws, Inputs, decode_block, extend
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.sizes import BlockShape, Sizes
from score_jax.rollout.slots import empty_slots


def lower_programs(
  decoder: Decoder, spec: RolloutSpec, params: dict, sizes: Sizes, mesh: jax.sharding.Mesh
) -> dict[str, jax.stages.Lowered]:
  """Traces what bounds the programs that `rollout` would run, to be compiled.

  Args:
    decoder: the model.
    spec: budgets, instructions, ends of turn.
    params: shapes and shardings of the policy's parameters.
    sizes: static shapes.
    mesh: the devices, which is set.

  Returns:
    By name 'prefill' (given tokens behind the most that a slot may have) and those of
    `decode_shapes`. Their parameters are those of `decoding_params`.
  """
  lowered = decoding_params.lower(decoder, params)
  params, decoder = _outputs(lowered), unrolled(decoder)
  num_devices = batch_rows(mesh)
  slots = _outputs(empty_slots.lower(decoder, sizes.slots * num_devices, sizes.capacity))

  def rows(count, dtype, *shape):
    shape = (count * num_devices, *shape)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh, len(shape)))

  def numbers(count, *names):
    return {name: rows(count, jnp.int32) for name in names}

  draws = Draws(
    key=rows(sizes.slots, jax.eval_shape(lambda: jax.random.key(0, impl='threefry2x32')).dtype),
    **numbers(sizes.slots, 'slot', 'length', 'turn', 'sampled', 'left'),
  )
  inputs = Inputs(
    tokens=rows(sizes.rows, jnp.int32, sizes.piece),
    is_prompt=rows(sizes.rows, bool),
    **numbers(sizes.rows, 'slot', 'length', 'count'),
  )
  temperature = jax.ShapeDtypeStruct((), jnp.float32)
  lowered = {'prefill': extend.lower(decoder, sizes.past()[-1], params, slots, inputs)}
  for name, shape in decode_shapes(sizes).items():
    lowered[name] = decode_block.lower(decoder, spec, shape, params, slots, draws, temperature)
  return lowered


def decode_shapes(sizes: Sizes) -> dict[str, BlockShape]:
  """Blocks of all slots that all others follow from.

  Args:
    sizes: static shapes.

  Returns:
    'decode, short', the shortest, and 'decode', the longest that copies what it reads, which takes
    the most memory; where there are one or two, these.
  """
  every = [shape for shape in sizes.blocks() if shape.rows == sizes.slots]
  ends = [every[0], every[-2]] if len(every) > 2 else every
  return dict(zip(('decode, short', 'decode')[-len(ends) :], ends, strict=True))


def _outputs(lowered: jax.stages.Lowered):
  """Shapes and places of what a program returns."""
  return jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    lowered.out_info,
    lowered.compile().output_shardings,
  )
