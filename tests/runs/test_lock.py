"""One writer per folder: who is refused, who takes over, what a fork, a kill or a bucket does."""

import dataclasses
import json
import os
import signal
import threading
import time

import pytest
from forked import Server

from score_jax.runs import lock
from score_jax.runs.lock import LOCK_FILE, FolderInUseError, Writer, one_writer, what_is_kept

# Holds a folder until it is killed, and so does a fork of it; prints who has the folder.
HOLDER = """
import os, time
from score_jax.runs.lock import FolderInUseError, one_writer
try:
  with one_writer({folder!r}):
    child = os.fork()
    if child:
      print('held', os.getpid(), child, flush=True)
    time.sleep(60)
except FolderInUseError as error:
  print(error, flush=True)
  os._exit(3)
"""


def test_two_at_once_and_the_next_one_after_a_kill(tmp_path):
  """Of two started together one is refused with both names; after SIGKILL all goes on at once."""
  folder, host = tmp_path / 'new' / 'run', os.uname().nodename
  server = Server('score_jax.runs.lock')
  try:
    programs = [server.start('', prelude=HOLDER.format(folder=str(folder))) for _ in range(2)]
    while not any(program.poll() for program in programs):
      time.sleep(0.01)
    (refused,) = (program for program in programs if program.returncode == 3)
    (holder,) = (program for program in programs if program is not refused)
    pid, orphan = map(int, holder._output.read_text().split()[1:])
    text = refused.communicate()
    assert f'{folder} is being written by process {pid} on {host} since 20' in text
    assert f'this is process {refused._pid} on {host}. Wait for its end' in text
    with pytest.raises(FolderInUseError, match=f'written by process {pid} on'), one_writer(folder):
      pass
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    start_s = time.monotonic()
    with one_writer(folder):  # though the fork is still there
      assert json.loads((folder / LOCK_FILE).read_text())['pid'] == os.getpid()
      with one_writer(folder):  # the same lock
        pass
      assert (folder / LOCK_FILE).exists()
    assert time.monotonic() - start_s < 2
    os.kill(orphan, signal.SIGKILL)  # which fails where it is gone
  finally:
    server.close()


def test_an_error_says_what_is_kept(tmp_path):
  for step in (3, 12):
    (tmp_path / 'checkpoints' / str(step)).mkdir(parents=True)
  kept = f'step 12 is kept in {tmp_path}; the same command goes on from it'
  with pytest.raises(OSError) as found, one_writer(tmp_path.parent), one_writer(tmp_path):
    raise OSError('no')
  assert found.value.__notes__ == [kept] and what_is_kept(tmp_path) == kept
  assert what_is_kept(tmp_path.parent).startswith(f'no step is kept in {tmp_path.parent}; ')
  assert not (tmp_path / LOCK_FILE).exists()


@pytest.fixture
def quick(monkeypatch):
  monkeypatch.setattr(lock, 'BEAT_S', 0.05)
  monkeypatch.setattr(lock, '_SETTLE_S', 0.05)


def leave(folder, **changes):
  """What a holder leaves that was killed."""
  writer = dataclasses.replace(Writer.this(), pid=2**22 + 1, beat=1, **changes)
  (folder / LOCK_FILE).write_text(json.dumps(dataclasses.asdict(writer)))
  return writer


@pytest.mark.usefixtures('quick')
@pytest.mark.parametrize('has_locks', [True, False])
def test_another_host_is_waited_for(tmp_path, monkeypatch, has_locks, capsys):
  """It counts as gone when it gives no sign of life, and not when it does."""
  if not has_locks:  # a bucket, or a network's disk without them
    monkeypatch.setattr(lock._Lock, '_flock', lambda self: None)
  writer = leave(tmp_path, host='other', machine='another boot')
  with one_writer(tmp_path):
    assert 'by process 4194305 on other since' in capsys.readouterr().err
    assert json.loads((tmp_path / LOCK_FILE).read_text())['pid'] == os.getpid()
  writer = leave(tmp_path, host='other', machine='another boot')

  def beat():
    time.sleep(0.1)
    text = json.dumps(dataclasses.asdict(dataclasses.replace(writer, beat=2)))
    (tmp_path / LOCK_FILE).write_text(text)

  thread = threading.Thread(target=beat)
  thread.start()
  with pytest.raises(FolderInUseError, match='on other since'), one_writer(tmp_path):
    pass
  thread.join()


@pytest.mark.usefixtures('quick')
@pytest.mark.skipif(not os.path.exists('/proc/self/stat'), reason='needs /proc')
def test_a_process_of_this_machine_is_known_without_locks(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(lock._Lock, '_flock', lambda self: None)
  leave(tmp_path)  # no process has this number
  with one_writer(tmp_path):
    pass
  me = dataclasses.replace(Writer.this(), beat=1)  # a process that is there
  (tmp_path / LOCK_FILE).write_text(json.dumps(dataclasses.asdict(me)))
  with pytest.raises(FolderInUseError), one_writer(tmp_path):
    pass
  # The number is another one's by now.
  earlier = dataclasses.replace(me, started='1')
  (tmp_path / LOCK_FILE).write_text(json.dumps(dataclasses.asdict(earlier)))
  with one_writer(tmp_path):
    pass
  assert 'waiting' not in capsys.readouterr().err


@pytest.mark.usefixtures('quick')
def test_who_was_taken_for_gone_ends(tmp_path, monkeypatch):
  """Frozen for so long that another host took over: it must not write on."""
  ended = threading.Event()

  def end(status):
    ended.set()
    raise OSError('as if it had ended')

  monkeypatch.setattr(lock.os, '_exit', end)
  with one_writer(tmp_path):
    leave(tmp_path, host='other', machine='another boot')
    assert ended.wait(5)
  assert json.loads((tmp_path / LOCK_FILE).read_text())['host'] == 'other'  # not ours to remove


@pytest.mark.parametrize('text', ['', '{"host"', '[]', '{"host": "a"}'])
def test_a_damaged_lock_file_keeps_nobody_out(tmp_path, text):
  (tmp_path / LOCK_FILE).write_text(text)
  with one_writer(tmp_path):
    pass
  assert not (tmp_path / LOCK_FILE).exists()
