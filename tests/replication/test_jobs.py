"""Rows as processes: order, how many at once, failures, and what is left after a kill.

The processes here are a script that writes down that it was there, and takes milliseconds.
"""

import inspect
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import pytest
from etils import epath
from makers import ROOT
from replication_rows import PLAIN

from score_jax.replication import jobs
from score_jax.replication.rows import ReplicationRow

SEEDS = 2
NUM_STEPS = 10

# ROW WORKDIR SEEDS WHAT_TO_DO; a line of `events` says that the row began or ended.
CHILD = """
import json, os, pathlib, sys, time
name, workdir, seeds, todo = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]

def tell(what):
  with open(workdir / 'events', 'a') as out:
    out.write(f'{what} {name}\\n')

tell('began')
if todo == 'fail':
  print('of no interest', flush=True)
  sys.exit('boom: ' + name)
if todo == 'die':
  os.kill(os.getpid(), 9)
if todo.startswith('meet '):
  while f'began {todo[5:]}' not in (workdir / 'events').read_text():
    time.sleep(0.01)
for seed in range(0 if todo == 'nothing' else seeds):
  folder = workdir / name / f'seed{seed}'
  (folder / 'metrics').mkdir(parents=True)
  with open(folder / 'metrics' / 'metrics-00000000.jsonl', 'w') as out:
    for step in range(1, 26 if todo == 'many' else 11):
      out.write(json.dumps({'step': step}) + '\\n')
  time.sleep(0.05)
  (folder / 'new').write_text('{}')
  (folder / 'new').rename(folder / 'row.json')
tell('ended')
"""


def row(name: str, init: str = '', **more) -> ReplicationRow:
  return ReplicationRow(name, name, 'method', PLAIN, NUM_STEPS, init, **more)


class Replication:
  """Runs rows, and keeps what was started."""

  def __init__(self, workdir, rows):
    self.workdir = epath.Path(workdir)
    self.rows = {row.name: row for row in rows}
    self.started = []

  def seeds_of(self, of) -> list[int]:
    return list(range(of.seeds or SEEDS))

  def run(self, num_jobs=2, names=None, **todo) -> list[str]:
    """`todo` says what rows do but finish."""
    self.started = []

    def command(name):
      self.started.append(name)
      of = self.rows[name]
      what = [name, str(self.workdir), str(len(self.seeds_of(of))), todo.get(name, 'ok')]
      return [sys.executable, '-I', '-S', '-c', CHILD, *what]

    names = list(self.rows) if names is None else names
    return jobs.run_jobs(names, self.rows, self.seeds_of, command, self.workdir, num_jobs)

  def events(self) -> list[str]:
    return (self.workdir / 'events').read_text().splitlines()

  def error(self, name: str) -> str:
    path = self.workdir / name / 'error.txt'
    return path.read_text() if path.exists() else ''


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  """Looks after its processes often, but not for ever: what never ends fails."""
  polls = iter(range(1000))

  def short(seconds):
    assert next(polls, None) is not None, 'the jobs never came to an end'
    time.sleep(seconds)

  monkeypatch.setattr(jobs, '_POLL_S', 0.03)
  monkeypatch.setattr(jobs, 'time', types.SimpleNamespace(sleep=short))


def test_rows_run_after_what_they_need(tmp_path):
  rows = [row('base'), row('a'), row('b', 'a'), row('c', 'b'), row('d', 'base', after='a')]
  replication = Replication(tmp_path, rows)
  assert replication.run(num_jobs=5) == []
  events = replication.events()
  for name, needs in {'b': 'a', 'c': 'b', 'd': 'base'}.items():
    assert events.index(f'ended {needs}') < events.index(f'began {name}'), events
  assert events.index('ended a') < events.index('began d')
  assert sorted(replication.started) == ['a', 'b', 'base', 'c', 'd']
  assert not any(replication.error(name) for name in replication.rows)


def test_a_row_waits_for_the_bases_fixed_answers(tmp_path):
  replication = Replication(
    tmp_path, [row('base', evaluations=('fixed',)), row('a', evaluations=('fixed',))]
  )
  assert replication.run(num_jobs=2) == []
  assert replication.started == ['base', 'a']


@pytest.mark.parametrize('num_jobs', [1, 2, 3])
def test_as_many_at_once_as_asked_for(tmp_path, num_jobs):
  replication = Replication(tmp_path, [row(name) for name in 'abcdef'])
  # A row that waits for another one's beginning ends only if both are there at once.
  meeting = {1: {}, 2: {'a': 'meet b'}, 3: {'a': 'meet b', 'b': 'meet c'}}[num_jobs]
  assert replication.run(num_jobs=num_jobs, **meeting) == []
  now, most = 0, 0
  for event in replication.events():
    now += 1 if event.startswith('began') else -1
    most = max(most, now)
  assert most == num_jobs
  assert replication.started == list('abcdef')


def test_finished_rows_are_not_run_again(tmp_path):
  replication = Replication(tmp_path, [row('a'), row('b', 'a')])
  replication.run()
  (tmp_path / 'b' / 'seed1' / 'row.json').unlink()
  (tmp_path / 'b' / 'seed1' / 'metrics' / 'metrics-00000000.jsonl').unlink()
  (tmp_path / 'b' / 'seed1' / 'metrics').rmdir()
  for name in ('seed0', 'seed1'):
    (tmp_path / 'b' / name).rename(tmp_path / f'b_{name}')  # its script makes folders anew
  assert replication.run() == [] and replication.started == ['b']
  assert replication.run() == [] and replication.started == []


def test_a_failure_costs_those_that_need_it_alone(tmp_path):
  rows = [row('base'), row('a', 'base'), row('b', 'a'), row('c', 'base'), row('d', 'b'), row('e')]
  replication = Replication(tmp_path, rows)
  assert sorted(replication.run(a='fail')) == ['a', 'b', 'd']
  assert sorted(replication.started) == ['a', 'base', 'c', 'e']
  assert replication.error('a') == 'exit status 1\nof no interest\nboom: a\n'
  assert replication.error('b') == "not started: no ['a']\n"
  assert replication.error('d') == "not started: no ['b']\n"
  assert not replication.error('c') and not replication.error('e')
  # The same again tries only what failed.
  assert sorted(replication.run(a='fail')) == ['a', 'b', 'd'] and replication.started == ['a']
  assert replication.run() == [] and replication.started == ['a', 'b', 'd']
  assert not any(replication.error(name) for name in replication.rows)


def test_an_error_is_of_the_last_attempt(tmp_path):
  replication = Replication(tmp_path, [row('a')])
  assert replication.run(a='fail') == ['a']
  assert replication.run(a='die') == ['a']
  assert replication.error('a').startswith('exit status -9')
  assert 'boom' not in replication.error('a')


def test_rows_that_cannot_be_run_are_left_out(tmp_path):
  rows = [row('a', not_applicable='no model'), row('b', 'a'), row('c')]
  replication = Replication(tmp_path, rows)
  assert replication.run() == ['b'] and replication.started == ['c']
  assert replication.error('b') == "not started: no ['a']\n"
  assert not (tmp_path / 'a').exists()


def test_what_was_not_asked_for_is_not_started(tmp_path):
  replication = Replication(tmp_path, [row('a'), row('b'), row('c')])
  assert replication.run(names=['b']) == [] and replication.started == ['b']


def test_one_seed_waits_for_one_seed(tmp_path):
  """A sweep's row starts as soon as its own seed of what it needs is there."""
  replication = Replication(tmp_path, [row('a'), row('sweep', 'a', seeds=1)])
  (tmp_path / 'a' / 'seed0').mkdir(parents=True)
  (tmp_path / 'a' / 'seed0' / 'row.json').write_text('{}')
  assert replication.run(a='fail') == ['a']
  assert replication.started == ['a', 'sweep']
  assert (tmp_path / 'sweep' / 'seed0' / 'row.json').exists()
  assert not (tmp_path / 'sweep' / 'seed1').exists()


@pytest.mark.parametrize('num_jobs', [1, 2])
def test_a_later_seeds_failure_is_nothing_to_one_seed(tmp_path, num_jobs):
  replication = Replication(tmp_path, [row('a'), row('b', 'a'), row('sweep', 'a', seeds=1)])
  (tmp_path / 'a' / 'seed0').mkdir(parents=True)
  (tmp_path / 'a' / 'seed0' / 'row.json').write_text('{}')
  assert replication.run(num_jobs=num_jobs, a='fail') == ['a', 'b']


def test_a_row_that_ends_without_a_result_has_failed(tmp_path):
  replication = Replication(tmp_path, [row('a'), row('b', 'a'), row('c')])
  assert sorted(replication.run(a='nothing')) == ['a', 'b']
  assert replication.error('a') and replication.error('b')


def test_the_bar_never_says_more_than_all(tmp_path, monkeypatch):
  shown = []

  class Bar(jobs.tqdm):
    def update(self, n=1):
      super().update(n)
      shown.append((self.n, self.total))

  monkeypatch.setattr(jobs, 'tqdm', Bar)
  rows = [row('a'), row('b', 'a'), row('c', not_applicable='no'), row('d', seeds=1)]
  replication = Replication(tmp_path, rows)
  assert replication.run(a='many') == []  # more steps than its row has
  # Two seeds of a and b, one of d, 10 updates and an evaluation each.
  assert {total for _, total in shown} == {5 * (NUM_STEPS + jobs._EVALUATION_WORK)}
  done = [n for n, _ in shown]
  assert done == sorted(done) and max(done) == done[-1] == shown[-1][1]
  assert len(set(done)) > 3
  # What was there before counts from the start, and nothing twice.
  shown.clear()
  (tmp_path / 'd' / 'seed0' / 'row.json').unlink()
  assert replication.run(d='fail') == ['d']
  # Its updates are there, its evaluation is not.
  assert {n for n, _ in shown} == {shown[0][1] - jobs._EVALUATION_WORK}


def test_a_broken_log_of_a_running_row_does_not_stop_the_others(tmp_path, monkeypatch):
  """A run that goes on takes back files while they are read."""
  reads = iter(range(10**6))

  def read(workdir):
    if next(reads) % 2:
      raise FileNotFoundError('metrics-00000011.jsonl')
    return [{'step': 3}]

  monkeypatch.setattr(jobs, 'read_metrics', read)
  replication = Replication(tmp_path, [row('a'), row('b')])
  assert replication.run() == []


# WORKDIR CHILD NAME...: one program for each name, as forks of what has imported all they need.
PARENTS = """
import os, pathlib, sys
from etils import epath
from score_jax.objective.stages import multiturn_rl
from score_jax.replication import jobs
from score_jax.replication.rows import ReplicationRow

jobs._POLL_S = 0.05
rows = {'a': ReplicationRow('a', 'a', 'method', multiturn_rl(0.0), 10)}
for name in sys.argv[3:]:
  if os.fork() == 0:
    workdir = epath.Path(sys.argv[1]) / name
    (workdir / 'parent').write_text(str(os.getpid()))
    command = [sys.executable, '-I', '-S', sys.argv[2], str(workdir)]
    jobs.run_jobs(['a'], rows, lambda row: [0], lambda name: command, workdir, 1)
    os._exit(0)
for _ in sys.argv[3:]:
  os.wait()
"""
SAVING_CHILD = f"""
import os, pathlib, signal, sys, threading, time

{inspect.getsource(jobs.end_with_parent)}
workdir = pathlib.Path(sys.argv[1])
def save(*_):
  (workdir / 'saved').write_text('')
  raise SystemExit(143)

signal.signal(signal.SIGTERM, save)
end_with_parent()
(workdir / 'pid').write_text(str(os.getpid()))
time.sleep(60)
"""


def wait_for(condition, process):
  deadline = time.monotonic() + 60
  while not condition():
    assert time.monotonic() < deadline and (process is None or process.poll() is None)
    time.sleep(0.02)


def is_gone(pid: int) -> bool:
  try:
    state = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
  except FileNotFoundError:
    return True
  return state == 'Z'  # it ended, and nobody asked how


@pytest.mark.skipif(not pathlib.Path('/proc/self/stat').exists(), reason='needs /proc')
def test_no_row_outlives_a_killed_program(tmp_path):
  script = tmp_path / 'child.py'
  script.write_text(SAVING_CHILD)
  kills = {'killed': signal.SIGKILL, 'stopped': signal.SIGTERM}
  for name in kills:
    (tmp_path / name).mkdir()
  command = [sys.executable, '-c', PARENTS, str(tmp_path), str(script), *kills]
  with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as parents:
    for name, kill in kills.items():
      workdir = tmp_path / name
      wait_for(lambda at=workdir / 'pid': at.exists() and at.read_text(), parents)
      pid = int((workdir / 'pid').read_text())
      assert not is_gone(pid) and not (workdir / 'saved').exists()
      os.kill(int((workdir / 'parent').read_text()), kill)
      wait_for(lambda pid=pid: is_gone(pid), None)
      assert (workdir / 'saved').exists(), 'it had no chance to save'
    parents.wait(timeout=30)
