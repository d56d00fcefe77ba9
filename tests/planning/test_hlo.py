"""What is read of a compiled program's text: how often loops run, choices, long kernels."""

import jax
import jax.numpy as jnp
import pytest
from compiled_texts import ADD, counted, program_of

from score_jax.planning.hlo import parse

LOOPS = [
  """%layer_cond (c: (s32[], f32[8])) -> pred[] {
  %c = (s32[], f32[8]) parameter(0)
  %i = s32[] get-tuple-element(%c), index=0
  %three = s32[] constant(3)
  ROOT %lt = pred[] compare(%i, %three), direction=LT
}""",
  """%layer (c: (s32[], f32[8])) -> (s32[], f32[8]) {
  %c = (s32[], f32[8]) parameter(0)
  %i = s32[] get-tuple-element(%c), index=0
  %w = f32[8]{0:T(128)} get-tuple-element(%c), index=1
  %whole = f32[16]{0} all-gather(%w), channel_id=1, replica_groups=[2,2]<=[2,2]T(1,0), """
  """dimensions={0}, use_global_device_ids=true, metadata={op_name="jit(f)/while/body/mlp/dot"}
  %sum = f32[8]{0} all-reduce(%w), channel_id=2, replica_groups=mesh['a'=2,'b'=2] {'b'}, """
  """to_apply=%add, metadata={op_name="jit(f)/while/body/attn/dot" stack_frame_id=3}
  ROOT %out = (s32[], f32[8]) tuple(%i, %sum)
}""",
  """%token_cond (c: (s32[], f32[8])) -> pred[] {
  %c = (s32[], f32[8]) parameter(0)
  %i = s32[] get-tuple-element(%c), index=0
  %budget = s32[]{:T(128)} constant(5)
  %lt = pred[] compare(%i, %budget), direction=LT
  %some = pred[] custom-call(%c), custom_call_target="SomeRowGoesOn"
  ROOT %and = pred[] and(%lt, %some)
}""",
  """%token (c: (s32[], f32[8])) -> (s32[], f32[8]) {
  %c = (s32[], f32[8]) parameter(0)
  ROOT %deep = (s32[], f32[8]) while(%c), condition=%layer_cond, body=%layer
}""",
]


LOOPS_ENTRY = """%main (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]) parameter(0)
  ROOT %decode = (s32[], f32[8]) while(%p), condition=%token_cond, body=%token
}"""


def test_collectives_of_loops_are_counted_as_often_as_they_run():
  found = {x.kind: x for x in counted(program_of(LOOPS_ENTRY, ADD, *LOOPS)).collectives}
  gather, total = found['all-gather'], found['all-reduce']
  # 5 tokens of 3 layers. Of two chips each sends its own 8 numbers to the other; a sum in a ring
  # of two sends half of the numbers, twice.
  assert (gather.axes, gather.times, gather.sent) == ('fsdp', 15, 15 * 8 * 4)
  assert (total.axes, total.times, total.sent) == ('tensor', 15, 15 * 8 * 4)
  assert (gather.source, total.source) == (
    'jit(f)/while/body/mlp/dot',
    'jit(f)/while/body/attn/dot',
  )
  assert gather.seconds == 15 * 8 * 4  # one link of a byte a second
  assert counted(program_of(LOOPS_ENTRY, ADD, *LOOPS)).unknown_loops == ()


def test_a_loop_without_a_known_end_is_named():
  endless = [x.replace('constant(5)', 'custom-call(%c)') for x in LOOPS]
  entry = LOOPS_ENTRY.replace('body=%token', 'body=%token, metadata={op_name="jit(f)/search"}')
  found = counted(program_of(entry, ADD, *endless))
  assert found.unknown_loops == ('jit(f)/search',)
  assert {x.times for x in found.collectives} == {3}
  known = entry.replace('metadata', 'backend_config={"known_trip_count":{"n":"7"}}, metadata')
  assert {x.times for x in counted(program_of(known, ADD, *endless)).collectives} == {21}


def test_a_loop_that_takes_two_steps_at_a_time():
  """The compiler unrolls loops of messages and products so."""
  out = '  ROOT %out = (s32[], f32[8]) tuple('
  by_two = """  %two = s32[] constant(2)
  %sum_i = s32[]{:T(128)} add(%i, %two)
  %next = s32[] copy(%sum_i)
"""
  loops = [x.replace(f'{out}%i', f'{by_two}{out}%next') for x in LOOPS]
  assert loops != LOOPS
  before, after = (counted(program_of(LOOPS_ENTRY, ADD, *x)).collectives for x in (LOOPS, loops))
  # Two times, not three, to reach 3; in a loop of 5.
  assert {x.times for x in before} == {15} and {x.times for x in after} == {10}


BLOCK = [
  """%goes_on (c: (s32[], s32[], f32[8])) -> pred[] {
  %c = (s32[], s32[], f32[8]) parameter(0)
  %step = s32[] get-tuple-element(%c), index=0
  %idle = s32[] get-tuple-element(%c), index=1
  %steps = s32[] constant(64)
  %rows = s32[] constant(4)
  %before_end = pred[] compare(%step, %steps), direction=LT
  %not_idle = pred[] compare(%idle, %rows), direction=LT
  ROOT %and = pred[] and(%before_end, %not_idle)
}""",
  """%token (c: (s32[], s32[], f32[8])) -> (s32[], s32[], f32[8]) {
  %c = (s32[], s32[], f32[8]) parameter(0)
  %step = s32[] get-tuple-element(%c), index=0
  %idle = s32[] get-tuple-element(%c), index=1
  %x = f32[8] get-tuple-element(%c), index=2
  %one = s32[] constant(1)
  %next = s32[] add(%step, %one)
  %ended = s32[] custom-call(%x), custom_call_target="RowsThatEnded"
  %more = s32[] add(%idle, %ended)
  %sum = f32[8] all-reduce(%x), channel_id=1, replica_groups=[2,2]<=[4], to_apply=%add
  ROOT %out = (s32[], s32[], f32[8]) tuple(%next, %more, %sum)
}""",
]
BLOCK_ENTRY = """%main (p: (s32[], s32[], f32[8])) -> (s32[], s32[], f32[8]) {
  %p = (s32[], s32[], f32[8]) parameter(0)
  ROOT %block = (s32[], s32[], f32[8]) while(%p), condition=%goes_on, body=%token
}"""


def test_a_block_of_decoding_takes_all_its_steps():
  """What grows by rows that have ended is no counter, though fewer of them end the loop."""
  (total,) = counted(program_of(BLOCK_ENTRY, ADD, *BLOCK)).collectives
  assert total.times == 64


@pytest.mark.parametrize(('most', 'times'), [(1, 1), (5, 5), (None, 64)])
def test_a_loop_that_may_end_early_runs_as_often_as_is_said(most, times):
  (total,) = counted(program_of(BLOCK_ENTRY, ADD, *BLOCK), most=most).collectives
  assert total.times == times
  # Its layers are all run.
  found = {x.times for x in counted(program_of(LOOPS_ENTRY, ADD, *LOOPS), most=most).collectives}
  assert found == {3 * min(times, 5)}


SPLASH = (
  """%attend (q: f32[2,9,768,64], k: f32[2,3,768,64]) -> f32[2,9,768,64] {
  %blocks = s8[1,3,3]{2,1,0} constant({...})
  %q = f32[2,9,768,64]{3,2,1,0} parameter(0)
  %k = f32[2,3,768,64]{3,2,1,0} parameter(1)
  %splash_mha_fwd_residuals.2 = (f32[2,9,768,64]{3,2,1,0}, f32[2,9,768,128]{3,2,1,0}) """
  """custom-call(%blocks, %q, %k, /*index=3*/%k), custom_call_target="tpu_custom_call", """
  """frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"block_q\\": 256, \\"block_kv\\": 256}"
}}, metadata={op_name="jit(f)/attn/pallas_call"}
  %out = f32[2,9,768,64]{3,2,1,0} get-tuple-element(%splash_mha_fwd_residuals.2), index=0, """
  """frontend_attributes={kernel_metadata={
}}, metadata={op_name="jit(f)/attn/pallas_call"}
  %w = f32[64,64]{1,0} constant({...})
  ROOT %product = f32[2,9,768,64]{3,2,1,0} dot(%out, %w), lhs_contracting_dims={3}, """
  """rhs_contracting_dims={0}
}"""
)


@pytest.mark.parametrize('rows', [2, 1])
def test_a_kernel_that_is_written_over_several_lines(rows):
  """Its products are counted, and what stands after it is not lost."""
  entry = """%main (q: f32[2,9,768,64], k: f32[2,3,768,64]) -> f32[2,9,768,64] {
  %q = f32[2,9,768,64]{3,2,1,0} parameter(0)
  %k = f32[2,3,768,64]{3,2,1,0} parameter(1)
  ROOT %c = f32[2,9,768,64]{3,2,1,0} call(%q, %k), to_apply=%attend
}"""
  texts = [entry, SPLASH]
  if rows == 1:  # the compiler drops their axis
    for old, new in (('[2,', '['), ('{3,2,1,0}', '{2,1,0}'), ('={3}', '={2}')):
      texts = [text.replace(old, new) for text in texts]
  module = program_of(*texts)
  kernel = module.computations['attend'].instructions['splash_mha_fwd_residuals.2']
  assert kernel.source == 'jit(f)/attn/pallas_call' and 'block_kv' in kernel.attributes
  seen_pairs = 768 * 768 // 2
  attention = 2 * 2 * rows * 9 * seen_pairs * 64  # two products, two operations each
  assert counted(module).flops == attention + 2 * rows * 9 * 768 * 64 * 64


def test_of_a_choice_the_longest_branch_is_counted():
  def chosen(x):
    return jax.lax.cond(x[0, 0] > 0, lambda: x @ x, lambda: (x @ x) @ x)

  x = jax.ShapeDtypeStruct((64, 64), jnp.float32)
  program = parse(jax.jit(chosen).lower(x).compile().as_text())
  assert counted(program).flops == 2 * 2 * 64**3
