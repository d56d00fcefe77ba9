"""Worker processes: what hangs, crashes or eats memory costs one verdict and nothing else."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from score_jax.tasks import base
from score_jax.tasks.workers.pool import WorkerPool


@pytest.fixture
def make_pool(monkeypatch):
  # Workers search where the parent does.
  monkeypatch.syspath_prepend(os.path.dirname(__file__))
  pools = []

  def make(**kwargs):
    pools.append(WorkerPool('acts:act', **{'timeout_s': 20.0, **kwargs}))
    return pools[-1]

  yield make
  for pool in pools:
    pool.close()


def _is_alive(pid: int) -> bool:
  try:
    with open(f'/proc/{pid}/stat') as f:
      return f.read().rpartition(')')[2].split()[0] != 'Z'
  except FileNotFoundError:
    return False


def test_verdicts_come_back_in_order_whoever_is_first(make_pool):
  items = [('sleep', '0.4')] + [('echo', str(i)) for i in range(30)]
  verdicts = make_pool(num_workers=2).grade(items)
  assert verdicts[0] == base.Verdict(1.0, 'slept')
  assert [v.reason for v in verdicts[1:]] == [str(i) for i in range(30)]


def test_the_workers_persist_and_are_no_more_than_asked_for(make_pool):
  pool = make_pool(num_workers=2)
  pids = {v.reason for _ in range(3) for v in pool.grade([('pid', '')] * 8)}
  assert 1 <= len(pids) <= 2
  assert str(os.getpid()) not in pids


def test_nothing_starts_before_the_first_item(make_pool):
  pool = make_pool()
  assert pool._workers == []
  assert pool.grade([]) == []
  assert pool._workers == []


def test_any_string_arrives_unchanged(make_pool):
  pool = make_pool(num_workers=1)
  for text in ('', 'a\nb\r\n\0c', '\ud800 lone', '\u2028', '日本 \U0001f600'):
    assert pool.grade([('echo', text)]) == [base.Verdict(1.0, text)]


def test_a_hang_costs_its_own_item_only(make_pool):
  pool = make_pool(num_workers=2, timeout_s=1.0)
  pool.grade([('echo', 'warm')] * 2)
  start = time.monotonic()
  verdicts = pool.grade([('echo', 'a'), ('sleep', '60'), ('hang_in_c', ''), ('echo', 'b')])
  assert [v.reason for v in verdicts] == ['a', 'timeout', 'timeout', 'b']
  assert [v.reward for v in verdicts] == [1.0, 0.0, 0.0, 1.0]
  assert time.monotonic() - start < 20


def test_a_death_costs_its_own_item_only(make_pool):
  verdicts = make_pool(num_workers=2).grade([('echo', 'a'), ('exit', ''), ('echo', 'b')])
  assert [v.reward for v in verdicts] == [1.0, 0.0, 1.0]
  assert verdicts[1].kind == 'error' and 'exit code 7' in verdicts[1].reason


def test_a_worker_killed_from_outside_loses_no_verdict(make_pool, tmp_path):
  items = [('echo', 'a'), ('exit_once', str(tmp_path / 'was_here')), ('echo', 'b')]
  verdicts = make_pool(num_workers=1).grade(items)
  assert [v.reason for v in verdicts] == ['a', 'second try', 'b']


def test_killing_workers_at_random_in_the_middle_of_a_batch(make_pool):
  pool = make_pool(num_workers=2)
  pool.grade([('echo', 'warm')] * 2)
  verdicts = []
  items = [('sleep', '0.05')] * 40
  thread = threading.Thread(target=lambda: verdicts.extend(pool.grade(items)))
  thread.start()
  # A single death is tried again; so two kills, far apart, must leave no trace.
  for _ in range(2):
    time.sleep(0.4)
    for worker in list(pool._workers)[:1]:
      worker.process.send_signal(signal.SIGKILL)
  thread.join(60)
  assert verdicts == [base.Verdict(1.0, 'slept')] * 40


def test_killing_either_worker_at_random_moments_changes_no_verdict(make_pool):
  pool = make_pool(num_workers=2)
  items = [('echo', f'{i}') if i % 3 else ('sleep', f'0.01{i}') for i in range(300)]
  undisturbed = pool.grade(items)
  verdicts = []
  thread = threading.Thread(target=lambda: verdicts.extend(pool.grade(items)))
  thread.start()
  rng = random.Random(0)
  num_kills = 0
  # As many as may befall one item or one start without being held against it.
  while thread.is_alive() and num_kills < 4:
    time.sleep(rng.uniform(0.05, 0.3))
    for worker in rng.sample(list(pool._workers), k=min(1, len(pool._workers))):
      worker.process.send_signal(signal.SIGKILL)
      num_kills += 1
  thread.join(60)
  assert num_kills >= 2
  assert verdicts == undisturbed


def test_workers_killed_while_idle_are_replaced(make_pool):
  pool = make_pool(num_workers=2)
  pool.grade([('echo', 'a')] * 4)
  for worker in pool._workers:
    worker.process.kill()
    worker.process.wait()
  assert [v.reason for v in pool.grade([('echo', 'b')] * 4)] == ['b'] * 4


@pytest.mark.skipif(sys.platform != 'linux', reason='RLIMIT_AS is enforced on Linux only')
def test_memory_is_limited(make_pool):
  verdicts = make_pool(num_workers=1, memory_bytes=1 << 29).grade(
    [('eat', str(1 << 30)), ('echo', 'next')]
  )
  assert verdicts[0].reason.startswith('error: MemoryError')
  assert verdicts[1] == base.Verdict(1.0, 'next')


def test_an_exception_is_a_verdict_that_says_what_happened(make_pool):
  verdicts = make_pool(num_workers=1).grade([('nonsense', ''), ('echo', 'next')])
  assert verdicts[0] == base.Verdict(0.0, "error: KeyError: 'nonsense'")
  assert verdicts[0].kind == 'error'
  assert verdicts[1].reason == 'next'


def test_equal_items_are_graded_once_and_remembered(make_pool):
  pool = make_pool(num_workers=1, cache_size=100)
  items = [('count', 'a'), ('count', 'b'), ('count', 'a')] * 5
  first = pool.grade(items)
  assert len({v.reason for v in first[::3] + first[2::3]}) == 1
  assert len({v.reason for v in first}) == 2
  assert pool.grade(items) == first
  pool.close()  # the cache outlives the workers
  assert pool.grade(items) == first
  assert pool._workers == []


def test_without_a_cache_every_item_is_graded(make_pool):
  verdicts = make_pool(num_workers=1).grade([('count', 'a')] * 5)
  assert [v.reason for v in verdicts] == ['1', '2', '3', '4', '5']


def test_a_cache_is_bounded_and_keeps_what_was_used_last(make_pool):
  pool = make_pool(num_workers=1, cache_size=2)
  (a,), (b,) = pool.grade([('count', 'a')]), pool.grade([('count', 'b')])
  assert pool.grade([('count', 'a')]) == [a]  # used again, so b is the oldest now
  pool.grade([('count', 'c')])
  assert len(pool._cache) == 2
  assert pool.grade([('count', 'a')]) == [a]
  assert pool.grade([('count', 'b')]) != [b]


def test_time_outs_and_errors_are_not_remembered(make_pool):
  pool = make_pool(num_workers=1, timeout_s=1.0, cache_size=100)
  assert [v.kind for v in pool.grade([('sleep', '60'), ('nonsense', '')] * 2)] == [
    'timeout',
    'error',
  ] * 2
  assert len(pool._cache) == 0


def test_texts_that_look_alike_are_kept_apart(make_pool):
  pool = make_pool(num_workers=1, cache_size=100)
  items = [('echo', text) for text in ('a', 'A', 'a ', '\u0430', '\ud800', '?', '\\ud800')]
  assert [v.reason for v in pool.grade(items)] == [text for _, text in items]
  assert [v.reason for v in pool.grade(items[::-1])] == [text for _, text in items[::-1]]


def test_a_worker_dies_with_items_in_its_queue(make_pool):
  pool = make_pool(num_workers=1)
  pool.grade([('echo', 'quick')] * 200)  # so that the next ones travel together
  items = [('echo', str(i)) for i in range(60)]
  items[3], items[40] = ('exit', ''), ('eat', str(1 << 40))
  verdicts = pool.grade(items)
  assert [v.kind for v in verdicts if not v.reward] == ['error', 'error']
  assert [v.reason for v in verdicts if v.reward] == [t for what, t in items if what == 'echo']


def test_a_hang_costs_those_that_travel_with_it_nothing(make_pool):
  pool = make_pool(num_workers=1, timeout_s=1.0)
  pool.grade([('echo', 'quick')] * 200)
  items = [('echo', str(i)) for i in range(60)]
  items[5] = ('sleep', '60')
  verdicts = pool.grade(items)
  assert [v.reason for v in verdicts] == ['timeout' if i == 5 else str(i) for i in range(60)]


def test_oversized_items_are_not_graded(make_pool):
  pool = make_pool(num_workers=1, max_chars=10)
  verdicts = pool.grade([('echo', 'x' * 6), ('echo', 'x' * 7), ('exit', 'x' * 10**6)])
  assert [v.reason for v in verdicts] == ['xxxxxx', 'too_long', 'too_long']


def test_something_else_than_text_is_the_callers_mistake(make_pool):
  with pytest.raises(TypeError, match='item 1'):
    make_pool().grade([('echo', 'a'), ('echo', b'bytes')])


def test_a_function_that_does_not_exist_is_an_error_and_no_verdict():
  pool = WorkerPool('no_such_module:grade')
  with pytest.raises(RuntimeError, match="(?s)no_such_module.*No module named 'no_such_module'"):
    pool.grade([('a',)])
  assert pool._workers == []


def test_close_ends_the_workers_and_grading_again_starts_new_ones(make_pool):
  pool = make_pool(num_workers=1)
  before = int(pool.grade([('pid', '')])[0].reason)
  pool.close()
  assert not _is_alive(before)
  assert int(pool.grade([('pid', '')])[0].reason) != before


def test_a_worker_has_no_jax(make_pool):
  assert make_pool(num_workers=1).grade([('jax', '')])[0].reason == 'False'


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
@pytest.mark.parametrize('then', ['idle', 'hang_in_c'])
def test_workers_end_when_the_parent_is_killed(then):
  code = textwrap.dedent(f"""
      from score_jax.tasks.workers.pool import WorkerPool
      pool = WorkerPool('acts:act', num_workers=1, timeout_s=1.0)
      print(pool.grade([('pid', '')])[0].reason, flush=True)
      pool.grade([('{then}', '')]) if '{then}' != 'idle' else None
      input()
  """)
  path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
  with subprocess.Popen(
    [sys.executable, '-c', code],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, 'PYTHONPATH': path},
  ) as parent:
    worker = int(parent.stdout.readline())
    time.sleep(0.2)
    assert _is_alive(worker)
    parent.kill()
  deadline = time.monotonic() + 20
  while _is_alive(worker) and time.monotonic() < deadline:
    time.sleep(0.1)
  assert not _is_alive(worker)


@pytest.mark.parametrize('kwargs', [{'num_workers': 0}, {'timeout_s': 0.0}])
def test_limits_that_make_no_sense(kwargs):
  with pytest.raises(ValueError, match='num_workers >= 1 and timeout_s > 0'):
    WorkerPool('acts:act', **kwargs)
