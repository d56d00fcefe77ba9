"""The benchmark on real lengths: which lengths are drawn, what is counted, and who warms up.

Processes that only talk stand in for the sides.
"""

import dataclasses
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from makers import ROOT

END = 0
# Answers as long as it is told to, but for a side that is to fail; says so in a common file.
FAKE = """
import sys
import sides

name, seconds, diary = sys.argv[1:]

def rollout(prompts, samples, instruction, end, lengths, slots):
  with open(diary, 'a') as file:
    file.write(f'{name}{len(prompts) * samples} ')
  ids = [[list(range(n - (name == 'C'))) for n in turn] for turn in lengths]
  return {'tokens': ids, 'seconds': float(seconds), 'decoded': 100, 'peak_bytes': 5 * 10**8}

sides.serve({'rollout': rollout})
"""


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
  """The benchmarks' folder is where Python looks, as it is for a script of it."""
  monkeypatch.syspath_prepend(ROOT / 'benchmarks')
  monkeypatch.setenv('PYTHONPATH', str(ROOT / 'benchmarks'))


def test_lengths_are_maths():
  import real_lengths as benchmark

  prompt_N, answer_N = np.array(json.loads(benchmark.LENGTHS.read_text())['lengths']).T
  assert len(prompt_N) == 1024 and prompt_N.min() > 0 and prompt_N.max() <= 512
  assert 195 < answer_N.mean() < 245 and 140 < np.median(answer_N) < 165
  assert 0.005 < np.mean(answer_N > 1024) < 0.03


def test_draw(monkeypatch, tmp_path):
  """Divided and rounded up; answers are cut at the budget; the same draw each time."""
  import real_lengths as benchmark

  monkeypatch.setattr(benchmark, 'LENGTHS', tmp_path / 'lengths.json')
  benchmark.LENGTHS.write_text(json.dumps({'lengths': [[9, 5], [16, 2000]]}))
  lengths = benchmark.draw(problems=20, samples=3, divide=4)
  assert set(lengths.prompts) == {3, 4} and len(lengths.prompts) == 20
  assert [len(turn) for turn in lengths.answers] == [60, 60]
  assert {n for turn in lengths.answers for n in turn} == {2, 256}
  assert lengths.answers[0] != lengths.answers[1]
  assert (lengths.budget, lengths.longest_prompt, lengths.slots) == (256, 128, 128 + 512 + 32)
  assert benchmark.draw(20, 3, 4) == lengths


def test_table():
  import real_lengths as benchmark

  rollouts = {
    'tunix': {'sampled': 100, 'decoded': 400, 'seconds': 10.0, 'peak_bytes': 2 * 10**9},
    'before': {'sampled': 100, 'decoded': 400, 'seconds': 5.0, 'peak_bytes': 10**9},
    'score_jax': {'sampled': 100, 'decoded': 120, 'seconds': 2.0, 'peak_bytes': 10**9},
  }
  updates = {
    'before': {'tokens': 50, 'computed': 200, 'seconds': [10.0, 9.0], 'temp_bytes': 3 * 10**9},
    'score_jax': {'tokens': 50, 'computed': 60, 'seconds': [3.0], 'temp_bytes': 10**9},
  }
  assert benchmark.HEADER.count('|') == 14
  assert benchmark.rollout_lines(rollouts) == [
    '| tunix | rollout | 10.0 | 4.00 | 2.00 | 1.00 |',
    '| before | rollout | 20.0 | 4.00 | 1.00 | 2.00 |',
    '| score_jax | rollout | 50.0 | 1.20 | 1.00 | 5.00 |',
  ]
  # An update of half of the episodes: a whole step takes 5 + 2 * 9 s, and 2 + 2 * 3 s.
  assert benchmark.update_lines(rollouts, updates, share=0.5) == [
    '| before | update | 5.6 | 4.00 | 3.00 | 1.00 |',
    '| score_jax | update | 16.7 | 1.20 | 1.00 | 3.00 |',
    '| before | whole step | 4.3 |  |  | 1.00 |',
    '| score_jax | whole step | 12.5 |  |  | 2.88 |',
  ]


def test_sides_roll_out_one_after_the_other(tmp_path, capsys):
  """Ours warms up with all rows, so that its last ones compile nothing; others with a batch."""
  import real_lengths as benchmark
  import sides

  (tmp_path / 'fake.py').write_text(FAKE)
  diary, command = tmp_path / 'diary', [sys.executable, str(tmp_path / 'fake.py')]
  lengths = benchmark.Lengths([3, 4], [[2, 5, 1, 4], [3, 1, 1, 2]], 8, 6)
  work = {'prompts': [[1] * 3, [2] * 4], 'samples': 2, 'instruction': [END], 'end': END}
  work |= {'lengths': lengths.answers, 'slots': 2}
  few = {'prompts': work['prompts'][:1], 'lengths': [turn[:2] for turn in lengths.answers]}
  with (
    sides.Side('tunix', [*command, 'A', '4.0', str(diary)]) as a,
    sides.Side('score_jax', [*command, 'B', '2.0', str(diary)]) as b,
  ):
    found = benchmark.measure_rollouts([a, b], work, work | few, lengths, repeats=2)
  assert diary.read_text().split() == ['A2', 'A4', 'A4', 'B4', 'B4', 'B4']
  one = {'decoded': 100, 'peak_bytes': 5 * 10**8, 'sampled': 19}
  assert found == {'tunix': one | {'seconds': 4.0}, 'score_jax': one | {'seconds': 2.0}}
  assert '4 of 4 rows of score_jax are those of tunix' in capsys.readouterr().out
  with (
    sides.Side('tunix', [*command, 'C', '1.0', str(diary)]) as side,
    pytest.raises(RuntimeError, match='tunix: 8 of 8 answers are not as long as told'),
  ):
    benchmark.measure_rollouts([side], work, work | few, lengths, repeats=1)


def test_flags(tmp_path, capsys):
  import real_lengths as benchmark

  ours = str(ROOT / 'benchmarks' / 'our_side.py')
  assert benchmark.commands(benchmark.parse_flags([])) == {'score_jax': [sys.executable, ours]}
  flags = benchmark.parse_flags(['--peer_python=P', f'--before={tmp_path}'])
  assert list(benchmark.commands(flags)) == ['tunix', 'before', 'score_jax']
  assert benchmark.commands(flags)['before'][:2] == ['env', f'PYTHONPATH={tmp_path}']
  for wrong, said in (
    ('--slots=20', '--slots 20 is no multiple of --samples 8'),
    ('--update_problems=65', '--update_problems 65 are more than 64'),
  ):
    with pytest.raises(SystemExit):
      benchmark.parse_flags([wrong])
    assert said in capsys.readouterr().err


def test_compiling_within_compiling_counts_once():
  import sides
  from jax import monitoring

  clock = sides.CompileClock()
  try:
    clock._hear('/jax/core/compile/backend_compile_duration', 2.0)
    assert clock.seconds == 2.0
    # It began before the first ended, an hour ago, and holds it.
    clock._hear('/jax/core/compile/jaxpr_trace_duration', 3600.0)
    clock._hear('/jax/checkpoint/write_duration', 5.0)
    assert clock.seconds == 3600.0
  finally:
    monitoring.unregister_event_duration_listener(clock._hear)


def sizes():
  import tunix_rollout

  config = tunix_rollout.model_config('smollm2_135m', is_tiny=True, dtype='float32')
  return dataclasses.asdict(config)


def test_our_update_counts_tokens(monkeypatch):
  import our_side

  monkeypatch.setattr(our_side, 'make_update', lambda *_, **__: SimpleNamespace(program=None))
  monkeypatch.setattr(our_side, 'times_of', lambda update, repeats: [3.0] * repeats)
  monkeypatch.setattr(our_side, 'program_memory', lambda program: (7, 9))
  work = {'prompts': [3, 3, 5, 5], 'lengths': [[2, 6, 1, 5], [1, 2, 6, 3]], 'between': 2}
  reply = our_side.OurSide().update(sizes(), **work, slots=5 + 6 + 2 + 6, rows=2, repeats=1)
  assert reply['tokens'] == 16 + 14 + 12 + 4 * 2
  assert reply['tokens'] <= reply['computed'] <= 4 * 19
  assert (reply['seconds'], reply['temp_bytes']) == ([3.0], 7)


@pytest.mark.slow
def test_tiny_run(run_python):
  done = run_python('benchmarks/real_lengths.py', '--tiny')
  assert done.returncode == 0, done.stderr
  rows = [line.strip('| ').split(' | ')[:2] for line in done.stdout.splitlines() if '|' in line]
  assert rows[2:] == [['score_jax', what] for what in ('rollout', 'update', 'whole step')]
