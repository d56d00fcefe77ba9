"""A plan in words: its tables, and what is said where it cannot run."""

import dataclasses
import json

import pytest
from makers import TESTS

from score_jax.planning.chips import GIB
from score_jax.planning.costs import Collective, Costs
from score_jax.planning.report import faults, plan_text, slices_table, summary_of_costs

MESH = {'data': 1, 'fsdp': 2, 'tensor': 2}


def tiny_plan(**changes):
  sent = {'times': 15, 'sent_bytes': 480, 'seconds': 480.0}
  gather = {'kind': 'all-gather', 'axes': 'fsdp', **sent}
  program = {
    'peak_bytes': GIB,
    'argument_bytes': 0,
    'result_bytes': 0,
    'temporary_bytes': 0,
    'code_bytes': 0,
    'flops': 10**12,
    'traffic_bytes': 10**9,
    'sent_bytes': 480,
    'chip_seconds': 20.0,
    'collective_seconds': 480.0,
    'collectives': [gather],
    'sources': [gather | {'source': 'while/mlp/dot'}],
    'unknown_loops': [],
  }
  part = {'each': {}, 'once': {}}
  fields = ('flops', 'traffic_bytes', 'sent_bytes', 'chip_seconds', 'collective_seconds')
  work = {key: program[key] for key in fields}
  ratio = {'flops': 2.0, 'traffic_bytes': 4.0}
  length = {
    'slots_per_token': {'decode': 1.25, 'update': 1.5},
    'work': {'prefill': work, 'decode': work, 'update': work},
    'needed': {x: {'flops': 5e11, 'traffic_bytes': 2.5e8} for x in ('decode', 'update')},
    'ratios': {'decode': ratio, 'update': ratio},
  }
  return {
    'config': 'configs/x.py',
    'preset': 'gemma2_2b',
    'topology': 'v5e:2x2',
    'mesh': dict(MESH),
    'versions': {'jax': '0.10.2', 'libtpu': '0.0.42.1'},
    'episodes': 4,
    'slots': 7,
    'instruction_tokens': 3,
    'settings': {},
    'hbm_bytes': 2 * GIB,
    'kept_bytes': {'parameters': GIB // 4, 'optimizer': 0, 'reference': GIB // 4},
    'cache_bytes': GIB // 8,
    'rollout_at_least_bytes': GIB,
    'model_flops': {'rollout': 1e12, 'update': 1e12},
    'whole': [],
    'programs': {
      'prefill': program,
      'decode, short': program | part,
      'decode': program | part,
      'update': program | part,
    },
    'step': {'full': length, 'real': length},
  } | changes


def test_a_plan_that_fits_has_no_faults():
  plan = tiny_plan()
  assert faults(plan) == []
  text = plan_text(plan)
  assert '| all-gather | fsdp | 15 | 0.0 | 480000.0 | while/mlp/dot |' in text
  assert '4 chips (data 1, fsdp 2, tensor 2), 4 episodes of 7 tokens' in text
  assert '| all | 3.00 | 3.00 | 0.00 | 60.00 | 1440.00 |' in text
  assert 'The cache of all slots is 0.12 GiB of the results' in text
  assert 'A step takes 1440.0 s where messages are hidden behind work, 1500.0 s' in text
  assert 'Model FLOPs of the update: 1.00 T' in text
  ratios = '| 1.00 | 0.25 | 4.00 | 1.00 | 0.50 | 2.00 |'
  assert f'| decode, full lengths | 1.25 {ratios}' in text
  assert f'| update, real lengths | 1.50 {ratios}' in text
  assert 'every turn takes its whole budget' in text


@pytest.mark.parametrize(
  ('name', 'advice'), [('decode', 'rollout.slots'), ('update', 'train.micro_batches')]
)
def test_a_plan_that_does_not_fit_says_by_how_much_and_what_to_change(name, advice):
  plan = tiny_plan()
  plan['programs'][name] = plan['programs'][name] | {'peak_bytes': 3 * GIB}
  (fault,) = faults(plan)
  assert f'{name} takes 3.00 GiB of the 2.00 GiB of a chip of v5e:2x2, 0.50 of them' in fault
  assert advice in fault


def test_a_program_that_the_compiler_refuses():
  message = (
    'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. '
    'Used 40.50G of 15.75G hbm. Exceeded hbm capacity by 24.75G.\n\nTotal hbm usage >= 40.75G:'
  )
  plan = tiny_plan(programs={'rollout': {'refused': message}})
  (fault,) = faults(plan)
  assert 'the rollout does not fit: Used 40.50G of 15.75G hbm. Exceeded hbm capacity by' in fault
  assert 'more chips' in fault and '| rollout |' in plan_text(plan)


def test_temporaries_that_the_compiler_refuses():
  message = (
    'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries '
    '(118.50G) exceeds available HBM (95.74G).'
  )
  (fault,) = faults(tiny_plan(programs={'rollout': {'refused': message}}))
  assert (
    'the rollout does not fit: the total memory required for HLO temporaries (118.50G)' in fault
  )
  assert 'available HBM (95.74G). Lower config.rollout' in fault


def test_what_a_run_keeps_may_be_too_much_alone():
  kept = {'parameters': GIB, 'optimizer': 2 * GIB, 'reference': 0}
  (fault,) = faults(tiny_plan(programs={}, kept_bytes=kept))
  assert 'alone take 3.00 GiB of the 2.00 GiB' in fault and '(fsdp)' in fault


def test_what_a_rollout_must_hold_may_be_too_much():
  (fault,) = faults(tiny_plan(programs={}, rollout_at_least_bytes=3 * GIB))
  assert 'a rollout takes at least 3.00 GiB of the 2.00 GiB of a chip of v5e:2x2' in fault
  assert '0.50 for what a run keeps' in fault and 'turn_tokens' in fault


def test_an_array_that_lies_whole_along_an_axis_is_a_fault():
  half = {'name': 'state/mlp/gate', 'bytes': 3 * GIB, 'axes': ['fsdp']}
  whole = {'name': 'state/head', 'bytes': GIB, 'axes': ['fsdp', 'tensor']}
  first, second = faults(tiny_plan(whole=[half, whole]))
  assert 'state/mlp/gate lies whole along fsdp: each chip has 3.00 GiB of it' in first
  assert 'fsdp=2, tensor=2' in first and first.endswith('split one of them over fsdp')
  assert 'core/sharding.py split one of them over fsdp and tensor' in second


def test_the_table_of_slices():
  (row,) = slices_table({'a': tiny_plan()}).splitlines()[2:]
  assert row == '| a | v5e:2x2 | 1, 2, 2 | 1.0 | 1.0 | 1440 to 1500 |'


def test_collectives_of_a_plan_are_added_up_by_axes_and_by_source():
  each = {'times': 15, 'sent': 480, 'seconds': 480.0}
  gather = Collective('all-gather', 'fsdp', 'jit(f)/while/body/mlp/dot', **each)
  total = Collective('all-reduce', 'tensor', 'jit(f)/while/body/attn/dot', **each)
  other = dataclasses.replace(gather, source='jit(f)/head/dot', times=1, sent=8, seconds=8.0)
  costs = Costs(0, 0, 0.0, (gather, total, other), unknown_loops=('jit(f)/search',))
  summary = summary_of_costs(costs)
  assert summary['collectives'] == [
    {'kind': 'all-gather', 'axes': 'fsdp', 'times': 16, 'sent_bytes': 488, 'seconds': 488.0},
    {'kind': 'all-reduce', 'axes': 'tensor', 'times': 15, 'sent_bytes': 480, 'seconds': 480.0},
  ]
  assert [x['source'] for x in summary['sources']] == [
    'while/mlp/dot',
    'while/attn/dot',
    'head/dot',
  ]
  assert (summary['sent_bytes'], summary['collective_seconds']) == (968, 968.0)
  assert summary['unknown_loops'] == ['search']


def test_a_plan_here_has_what_a_plan_that_was_made_has():
  made = json.loads((TESTS / 'plans/smollm2_135m.json').read_text())
  assert tiny_plan().keys() | {'too_small'} == made.keys()
  for name, program in made['programs'].items():
    assert tiny_plan()['programs'][name].keys() == program.keys()
