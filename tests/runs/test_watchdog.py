"""Lost processes and hangs, without a pod.

Watchdogs that are looked after by hand, and two processes that do nothing but meet: this file, run
as a program.
"""

import itertools
import json
import re
import signal
import socket
import sys
import time
import types

import numpy as np
import pytest
from absl import flags
from forked import Server
from jax.experimental import multihost_utils

from score_jax.cli import distributed
from score_jax.runs import watchdog
from score_jax.runs.watchdog import LOST_BEATS, STATUS, Watchdog


class Kennel:
  """Watchdogs of all processes of a run, looked after by hand."""

  def __init__(self, folder, count, hang_s=0.6):
    self.ended = []
    self.dogs = [
      Watchdog(folder, hang_s, i, count, end=lambda i=i: self.ended.append(i)) for i in range(count)
    ]

  def rounds(self, number, silent=(), stuck=()):
    """Lets all processes but the silent ones write and read, and all but the stuck ones get on."""
    for _ in range(number):
      for i, dog in enumerate(self.dogs):
        if i not in (*silent, *stuck, *self.ended):
          dog.at(dog._place.step + 1, 'rollout')
        if i not in (*silent, *self.ended):
          dog.exchange()
          dog.look()


@pytest.fixture
def kennel(tmp_path):
  return Kennel(tmp_path, 3)


def test_nobody_is_accused_while_all_get_on(kennel, capfd):
  kennel.rounds(20)
  assert kennel.ended == [] and capfd.readouterr().err == ''


def test_a_lost_process_is_named_and_all_end(kennel, capfd):
  kennel.rounds(4)
  kennel.rounds(LOST_BEATS, silent=[1])  # in the first of them process 0 sees its last beat
  assert kennel.ended == []
  kennel.rounds(1, silent=[1])
  assert kennel.ended == [0, 2]
  said = capfd.readouterr().err
  assert 'no sign of life for 0.06 s from process 1 (last at step 4 (rollout) since 20' in said
  assert 'process 0 of 3 is at step 11 (rollout)' in said
  assert 'watchdog of process 2: process 0 of 3 says: no sign of life' in said
  assert 'test_a_lost_process_is_named' in said  # where each thread is
  assert f'ends with status {STATUS}' in said


def test_process_0_is_missed_by_all(kennel, capfd):
  kennel.rounds(3)
  kennel.rounds(LOST_BEATS, silent=[0])
  assert kennel.ended == [1, 2]
  assert capfd.readouterr().err.count('from process 0 (last at step 3 (rollout)') == 2


def test_one_that_comes_late_or_ends_early_is_not_missed(kennel):
  kennel.rounds(20, silent=[2])  # still loading
  kennel.rounds(3)
  with kennel.dogs[1].watching():
    pass
  kennel.rounds(20, silent=[1])
  assert kennel.ended == []


def test_an_earlier_start_is_not_listened_to(tmp_path, kennel):
  kennel.rounds(3)
  kennel.rounds(LOST_BEATS + 1, silent=[0])
  assert kennel.ended == [1, 2]
  again = Kennel(tmp_path, 3)
  again.rounds(20, silent=[1, 2])
  again.rounds(20)
  assert again.ended == []


def test_a_hang_names_who_is_behind(kennel, capfd):
  kennel.rounds(5)
  kennel.rounds(1, stuck=[1])  # the others go one part further, and wait there
  kennel.rounds(58, stuck=[0, 1, 2])
  assert kennel.ended == []
  kennel.rounds(4, stuck=[0, 1, 2])
  assert sorted(kennel.ended) == [0, 1, 2]
  said = capfd.readouterr().err
  assert 'no progress for 0.6 s: process 0 is at step 6 (rollout)' in said
  assert 'waiting for process 1 (last at step 5 (rollout)' in said


def test_progress_starts_the_count_anew(tmp_path, capfd):
  (alone,) = (kennel := Kennel(tmp_path, 1)).dogs
  for _ in range(3):
    alone.at(1, 'update')
    for _ in range(60):
      alone.look()
  assert kennel.ended == []
  alone.look()
  assert kennel.ended == [0]
  assert 'process 0 is at step 1 (update)' in capfd.readouterr().err
  assert list(tmp_path.iterdir()) == []  # nobody would read it


def test_an_error_of_one_process_is_reported(kennel, tmp_path, capfd):
  kennel.rounds(2)
  kennel.dogs[2]._peers.clear()  # while it waits nobody writes: it would find the others lost
  with pytest.raises(ValueError), kennel.dogs[2].watching():
    raise ValueError('a broken file')
  kennel.rounds(2, silent=[2])
  assert kennel.ended == [0, 1]
  assert 'process 2 of 3 says: ValueError at step 2 (rollout)' in capfd.readouterr().err


def test_what_all_raise_is_no_loss(kennel):
  kennel.rounds(2)
  with pytest.raises(KeyError), kennel.dogs[2].watching(agreed=(KeyError,)):
    raise KeyError
  kennel.rounds(20, silent=[2])
  assert kennel.ended == []


def test_an_error_waits_for_the_loss_that_made_it(tmp_path, capfd):
  kennel = Kennel(tmp_path, 3, hang_s=6.0)  # looks every 0.1 s
  kennel.rounds(2)
  with pytest.raises(RuntimeError), kennel.dogs[0].watching():
    raise RuntimeError('connection closed by peer')
  said = capfd.readouterr().err
  assert 'connection closed by peer' in said and 'said within 1 s' in said
  assert 'from process 1 (last at step 2 (rollout)' in said  # the others did not write meanwhile


def test_a_broken_disk_accuses_nobody(tmp_path, kennel, caplog):
  kennel.rounds(3)
  folder = tmp_path / 'heartbeats'
  folder.rename(tmp_path / 'away')
  folder.write_text('no folder')
  kennel.rounds(20)
  assert kennel.ended == [] and 'no heartbeat' in caplog.text
  kennel.rounds(60, stuck=[0, 1, 2])  # and a hang is still found
  assert 0 in kennel.ended


def test_nothing_is_watched_at_0(tmp_path):
  off = Watchdog(tmp_path, 0, 0, 2)
  with off.watching():
    off.at(1, 'update')
  assert list(tmp_path.iterdir()) == []


def test_heartbeats_are_for_people_too(kennel, tmp_path):
  kennel.dogs[1].at(7, 'update')
  kennel.dogs[1].exchange()
  record = json.loads((tmp_path / 'heartbeats' / 'process0001.json').read_text())
  assert types.SimpleNamespace(**record['place']).step == 7 and not record['is_over']


@pytest.fixture(scope='module')
def server():
  modules = 'jax.experimental.multihost_utils', 'score_jax.runs.watchdog', 'pytest'
  server = Server(*modules, JAX_ENABLE_COMPILATION_CACHE='false')  # see tests/cli/test_processes.py
  yield server
  server.close()


def test_a_stuck_program_ends(server, tmp_path):
  """The real end: from a thread, while the main one waits for ever."""
  stuck = (
    'import time; from score_jax.runs.watchdog import Watchdog\n'
    f'dog = Watchdog({str(tmp_path)!r}, 0.6, 0, 1)\n'
    'with dog.watching():\n'
    '  dog.at(3, "rollout")\n'
    '  while True: time.sleep(100)\n'
  )
  program = server.start('score_jax.main', prelude=stuck)
  said = program.communicate(timeout_s=100)
  assert program.returncode == STATUS
  assert 'no progress for 0.6 s: process 0 is at step 3 (rollout)' in said
  assert 'File "<string>", line 5 in <module>' in said


# Two processes that do nothing but meet: jax joined, each waits for the other in a collective.

BEAT_S = 1.0
LOSSES = [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGSTOP)]


def meet(server, workdir):
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    address = f'localhost:{probe.getsockname()[1]}'
  numbers = {'JAX_COORDINATOR_ADDRESS': address, 'JAX_NUM_PROCESSES': '2'}
  return [
    server.start('tests.runs.test_watchdog', workdir, **numbers, JAX_PROCESS_ID=str(i))
    for i in range(2)
  ]


def lose(workdir, programs, index, how):
  """Waits until a process has been heard of, and ends or stops it."""
  deadline_s = time.monotonic() + 120
  beats = set()
  path = workdir / 'heartbeats' / f'process{index:04d}.json'
  while len(beats) < 3:  # the first one might be an earlier start's, for all the other can tell
    if path.exists():
      beats.add(json.loads(path.read_text())['beat'])
    assert time.monotonic() < deadline_s and programs[1 - index].poll() is None
    time.sleep(0.05)
  programs[index].send_signal(how)


@pytest.fixture(scope='module')
def lost(server, tmp_path_factory):
  """By what happened to which process: exit status of the other one, and what it said."""
  folders = [tmp_path_factory.mktemp('lost') for _ in LOSSES]
  pairs = [meet(server, folder) for folder in folders]  # all at once: they mostly wait
  found = {}
  try:
    for folder, programs, (index, how) in zip(folders, pairs, LOSSES, strict=True):
      lose(folder, programs, index, how)
    start_s = time.monotonic()
    for programs, (index, how) in zip(pairs, LOSSES, strict=True):
      other = programs[1 - index]
      said = other.communicate(timeout_s=120)
      found[index, how] = other.returncode, said
    assert time.monotonic() - start_s < 60  # 6 s, and twice two looks
  finally:
    for program in itertools.chain(*pairs):
      program.send_signal(signal.SIGKILL)
  return found


@pytest.mark.parametrize(('index', 'how'), LOSSES)
def test_one_of_two_is_lost(lost, index, how):
  status, said = lost[index, how]
  if index == 0:  # the coordinator: jax is faster than the watchdog
    assert status == -signal.SIGABRT, said
    assert 'leader task was preempted/died' in said
    return
  assert status == STATUS, said
  place = r'at step \d+ \(meeting\)'
  assert re.search(rf'no sign of life for 6 s from process {index} \(last {place} since', said), (
    said
  )
  assert re.search(rf'process {1 - index} of 2 is {place}', said), said
  assert 'in main' in said  # where each thread is


def main():
  """Meets the other process for ever."""
  flags.FLAGS(['', '--distributed'])
  distributed.join()
  watchdog.BEAT_S = BEAT_S
  dog = Watchdog(sys.argv[1], 1800.0)
  with dog.watching():
    for step in itertools.count(1):
      dog.at(step, 'meeting')
      multihost_utils.process_allgather(np.asarray(step))
      time.sleep(0.05)


if __name__ == '__main__':
  main()
