"""What a compiled program costs: collectives, products, traffic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled_texts import ADD, MESH, PLACES, counted, program_of

from score_jax.planning import costs
from score_jax.planning.chips import CHIPS, GIB, HOP_S, Chip
from score_jax.planning.hlo import parse

ASYNC = [
  """%start (a: f32[8]) -> (f32[8], f32[16]) {
  %a = f32[8] parameter(0)
  %g = f32[16] all-gather(%a), channel_id=7, replica_groups={{0,1},{2,3}}, dimensions={0}
  ROOT %s = (f32[8], f32[16]) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}""",
  """%meanwhile (a: f32[8], o: f32[16], z: f32[4]) -> (f32[4], f32[8], f32[16]) {
  %a = f32[8] parameter(0)
  %o = f32[16] parameter(1)
  %z = f32[4] parameter(2)
  %n = f32[4] negate(%z)
  %g.1 = f32[16] all-gather(%a), channel_id=7, replica_groups={{0,1},{2,3}}, dimensions={0}
  ROOT %t = (f32[4], f32[8], f32[16]) tuple(%n, %a, %g.1)
}""",
]
ASYNC_ENTRY = """%main (a: f32[8], z: f32[4]) -> f32[4] {
  %a = f32[8] parameter(0)
  %z = f32[4] parameter(1)
  %f = (f32[8], f32[16]) fusion(%a), kind=kCustom, calls=%start
  %o = f32[16] get-tuple-element(%f), index=1
  %m = (f32[4], f32[8], f32[16]) fusion(%a, %o, %z), kind=kOutput, calls=%meanwhile
  ROOT %r = f32[4] get-tuple-element(%m), index=0
}"""


def test_a_collective_that_runs_beside_others_is_counted_once():
  found = counted(program_of(ASYNC_ENTRY, *ASYNC))
  assert [(x.axes, x.times, x.sent) for x in found.collectives] == [('tensor', 1, 32)]
  assert found.traffic == 2 * 4 * 4  # read z, write its negative; the gather is not memory's


def test_a_sum_that_is_kept_in_parts_sends_half():
  sum_and_slice = """%inner (a: f32[8]) -> f32[4] {
  %a = f32[8] parameter(0)
  %s = f32[8] all-reduce(%a), channel_id=3, replica_groups=[2,2]<=[4], to_apply=%add
  %zero = s32[] constant(0)
  ROOT %d = f32[4] dynamic-slice(%s, %zero), dynamic_slice_sizes={4}
}"""
  entry = """%main (a: f32[8]) -> f32[4] {
  %a = f32[8] parameter(0)
  ROOT %all-reduce-scatter.1 = f32[4] fusion(%a), kind=kCustom, calls=%inner
}"""
  found = counted(program_of(entry, ADD, sum_and_slice)).collectives
  assert [(x.kind, x.sent) for x in found] == [('reduce-scatter', 16)]


def test_small_messages_take_the_time_of_the_way():
  chip = CHIPS['v5p']
  found = costs.count(program_of(ASYNC_ENTRY, *ASYNC), chip, MESH, PLACES)
  assert found.collective_seconds == HOP_S


def test_products_that_are_written_as_convolutions():
  """A batch of 3 products of [4, 5] and [5, 6], as TPUs write them; and a plain one."""
  entry = """%main (a: f32[3,4,5], b: f32[3,5,6], c: f32[4,5], d: f32[5,6]) -> f32[3,4,6] {
  %a = f32[3,4,5] parameter(0)
  %b = f32[3,5,6] parameter(1)
  %c = f32[4,5] parameter(2)
  %d = f32[5,6] parameter(3)
  %plain = f32[4,6] dot(%c, %d), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %p = f32[3,4,6] convolution(%a, %b), window={size=3 stride=2 lhs_dilate=3}, """
  entry += 'dim_labels=0bf_0io->0bf\n}'
  assert counted(program_of(entry)).flops == 2 * (3 + 1) * 4 * 5 * 6


def test_memory_that_a_step_of_a_loop_touches():
  """One layer of a stack is read and one slot of a cache is written; the fast memory is free."""
  inner = """%inner (w: f32[9,8], i: s32[], c: f32[50,8], n: f32[1,8]) -> f32[50,8] {
  %w = f32[9,8] parameter(0)
  %i = s32[] parameter(1)
  %c = f32[50,8] parameter(2)
  %n = f32[1,8] parameter(3)
  %zero = s32[] constant(0)
  %s = f32[1,8] dynamic-slice(%w, %i, %zero), dynamic_slice_sizes={1,8}
  %v = f32[1,8] add(%s, %n)
  ROOT %u = f32[50,8] dynamic-update-slice(%c, %v, %i, %zero)
}"""
  entry = """%main (w: f32[9,8], i: s32[], c: f32[50,8], n: f32[1,8]) -> f32[50,8] {
  %w = f32[9,8]{1,0} parameter(0)
  %i = s32[]{:S(2)} parameter(1)
  %c = f32[50,8]{1,0:T(8,128)} parameter(2)
  %n = f32[1,8]{1,0:T(8,128)S(1)} parameter(3)
  ROOT %f = f32[50,8]{1,0:T(8,128)} fusion(%w, %i, %c, %n), kind=kLoop, calls=%inner
}"""
  assert counted(program_of(entry, inner)).traffic == 2 * 32


def test_an_argument_that_a_part_only_renames_is_read():
  """The compiler wraps weights in fusions that do nothing but change their shape."""
  renames = """%renames (w: f32[64]) -> f32[8,8] {
  %w = f32[64]{0} parameter(0)
  ROOT %b = f32[8,8]{1,0} bitcast(%w)
}"""
  outer = """%outer (w: f32[64], x: f32[4,8]) -> f32[4,8] {
  %w = f32[64]{0} parameter(0)
  %x = f32[4,8]{1,0} parameter(1)
  %f = f32[8,8]{1,0} fusion(%w), kind=kLoop, calls=%renames
  ROOT %d = f32[4,8]{1,0} dot(%x, %f), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}"""
  entry = """%main (w: f32[64], x: f32[4,8]) -> f32[4,8] {
  %w = f32[64]{0} parameter(0)
  %x = f32[4,8]{1,0} parameter(1)
  ROOT %f = f32[4,8]{1,0} fusion(%w, %x), kind=kOutput, calls=%outer
}"""
  assert counted(program_of(entry, renames, outer)).traffic == 4 * (64 + 4 * 8 + 4 * 8)
  # And a result that is renamed last is written.
  outer = """%outer (w: f32[64]) -> f32[8,8] {
  %w = f32[64]{0} parameter(0)
  %e = f32[64]{0} exponential(%w)
  ROOT %f = f32[8,8]{1,0} fusion(%e), kind=kLoop, calls=%renames
}"""
  entry = """%main (w: f32[64]) -> f32[8,8] {
  %w = f32[64]{0} parameter(0)
  ROOT %f = f32[8,8]{1,0} fusion(%w), kind=kLoop, calls=%outer
}"""
  assert counted(program_of(entry, renames, outer)).traffic == 4 * (64 + 64)


def test_what_is_counted_is_what_a_compiler_counts():
  """XLA's own analysis as the oracle, for a program without loops; and a loop of it."""

  def f(x, w):
    return jnp.tanh(x @ w)

  def looped(x, w):
    return jax.lax.scan(lambda x, _: (f(x, w), None), x, None, length=6)[0]

  x = jax.ShapeDtypeStruct((32, 32), jnp.float32)
  once = jax.jit(lambda x, w: x @ w).lower(x, x).compile()
  assert counted(parse(once.as_text())).flops == once.cost_analysis()['flops']
  assert counted(parse(jax.jit(looped).lower(x, x).compile().as_text())).flops == 6 * 2 * 32**3


@pytest.mark.parametrize(('shape', 'links'), [((2, 2, 4), 1), ((4, 4, 4), 2)])
def test_messages_know_the_slice_that_they_are_sent_in(shape, links):
  """Four chips in a line gather 8 numbers of each; of a cube they are a ring."""
  others = shape[0] * shape[1]
  gather = (
    f'ROOT %g = f32[32] all-gather(%a), channel_id=1, replica_groups=[{others},4]<=[{others * 4}]'
  )
  entry = f'ENTRY %main (a: f32[8]) -> f32[32] {{\n  %a = f32[8] parameter(0)\n  {gather}\n}}'
  mesh = {'data': 1, 'fsdp': others, 'tensor': 4}
  chip = Chip(GIB, 1.0, 1.0, 1.0, wraps_from=4, shapes=(), max_cube_chips=64)
  found = costs.count(parse(f'HloModule m\n\n{entry}\n'), chip, mesh, list(np.ndindex(*shape)))
  assert found.collective_seconds == 3 * 8 * 4 / links
