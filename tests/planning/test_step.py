"""A step made of its programs' calls, by hand; and ratios that grow."""

import numpy as np
import pytest
from jax.sharding import AbstractMesh

from score_jax.core.config import default_config
from score_jax.planning import step
from score_jax.planning.calls import Calls
from score_jax.planning.lengths import Lengths
from score_jax.planning.shapes import planned_run
from score_jax.planning.step import FIELDS, by_time, filled_parts, grown, ratios, rollout_work
from score_jax.rollout.sizes import BlockShape, Sizes

# Blocks read 10, 20, 30 or all 48 tokens of a slot; those of 10 and 30 are compiled.
SIZES = Sizes(slots=8, steps=4, piece=2, rows=2, lengths=(10, 20, 30, 40))


def fields(traffic, other=1.0):
  return dict.fromkeys(FIELDS, other) | {'traffic_bytes': traffic}


PROGRAMS = {
  'prefill': fields(7.0),
  'decode, short': {'each': fields(100.0), 'once': fields(10.0)},
  'decode': {'each': fields(140.0), 'once': fields(30.0)},
}


def work_of(steps, blocks, given=0):
  calls = Calls(SIZES)
  calls.given = given
  for (rows, length), n in steps.items():
    shape = BlockShape(rows, length, 4)
    calls.steps[shape], calls.blocks[shape] = n, blocks[rows, length]
  return rollout_work(PROGRAMS, calls, {'traffic_bytes': 60.0})


def test_a_block_grows_with_the_cache_that_is_read():
  steps = {(8, 10): 5, (8, 20): 7, (8, 30): 3}
  work = work_of(steps, {(8, 10): 2, (8, 20): 2, (8, 30): 1}, given=3)
  assert work['decode']['traffic_bytes'] == 5 * 100 + 7 * 120 + 3 * 140 + 2 * 10 + 2 * 20 + 30
  assert work['prefill']['traffic_bytes'] == 3 * 7
  assert work['decode']['flops'] == 5 + 7 + 3 + 2 + 2 + 1


def test_a_block_that_reads_all_of_the_cache_copies_nothing():
  """100 at 10 tokens and 20 for each 10 more; blocks 10 at 10 tokens and so 0 at none."""
  assert work_of({(8, 48): 4}, {(8, 48): 9})['decode']['traffic_bytes'] == 4 * 176


def test_fewer_rows_read_all_the_weights():
  work = work_of({(2, 30): 3}, {(2, 30): 1})
  assert work['decode']['traffic_bytes'] == 3 * (60 + 80 / 4) + 30 / 4
  assert work['decode']['flops'] == 3 / 4 + 1 / 4


@pytest.mark.parametrize(
  ('lengths', 'expected'), [((10,), 2 * 140 + 30), ((10, 20), 2 * 140 + 30 + 3 * 100 + 10)]
)
def test_one_or_two_programs_tell_of_themselves(lengths, expected):
  sizes = Sizes(slots=8, steps=4, piece=2, rows=2, lengths=lengths)
  calls = Calls(sizes)
  last, *shorter = sizes.blocks()[::-1]
  calls.steps[last], calls.blocks[last] = 2, 1
  for shape in shorter:
    calls.steps[shape], calls.blocks[shape] = 3, 1
  found = rollout_work(PROGRAMS, calls, {})
  assert found['decode']['traffic_bytes'] == expected


def test_a_loop_is_parted_into_its_times():
  found = by_time(fields(50.0, 9.0), fields(20.0, 3.0), times=4)
  assert found['each']['traffic_bytes'] == 10 and found['once']['traffic_bytes'] == 10
  assert found['each']['flops'] == 2 and found['once']['flops'] == 1
  alone = by_time(fields(20.0), fields(20.0), times=1)
  assert alone['each']['traffic_bytes'] == 20 and alone['once']['traffic_bytes'] == 0


@pytest.mark.parametrize(('rows', 'expected'), [(2, (3, 104)), (4, (2, 208)), (8, (1, 416))])
def test_parts_of_an_update_are_filled_with_whole_episodes(monkeypatch, rows, expected):
  """Rows of 52 slots: 52, 52, 52, 30 + 22, 40 + 12 and 1."""
  config = default_config()
  config.model.preset = 'smollm2_135m'
  run = planned_run(config, AbstractMesh((1, 1, 1), ('data', 'fsdp', 'tensor')), 3)
  monkeypatch.setattr(step, 'update_rows', lambda run: rows)
  tokens = np.array([30, 22, 52, 40, 52, 12, 1, 52])
  lengths = Lengths(tokens, np.zeros((8, 2), int), (0,), samples=1)
  assert filled_parts(run, lengths) == expected


def test_a_ratio_may_grow_by_a_twentieth():
  needed = {'decode': {'flops': 2.0, 'traffic_bytes': 10.0}}
  found = {'full': ratios({'prefill': fields(1.0), 'decode': fields(13.0, 2.0)}, needed)}
  assert found == {'full': {'decode': {'flops': 1.0, 'traffic_bytes': 1.3}}}
  kept = {'full': {'decode': {'flops': 1.0, 'traffic_bytes': 1.3 / 1.049}}}
  assert grown(found, kept) == []
  kept['full']['decode']['traffic_bytes'] = 1.3 / 1.051
  (line,) = grown(found, kept)
  assert line.startswith('full lengths, decode, traffic_bytes: 1.300 times what is needed')


@pytest.mark.parametrize('part', ['decode', 'update'])
def test_parts_that_were_refused_have_no_ratio(part):
  assert ratios({}, {part: {'flops': 1.0}}) == {}
