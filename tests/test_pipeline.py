"""The pipeline: what is finished is not done again, what was stopped goes on, and who does what."""

import json
import os
import signal
import threading
import time

import pytest
from etils import epath
from makers import ROOT

from score_jax import pipeline
from score_jax.pipeline import Runner, Step, first_unfinished, make_steps
from score_jax.runs.alive import signs_of_life
from score_jax.runs.watchdog import STATUS

# A program in place of the real ones: waits for the file `go` if there is a file `wait` beside its
# folder, fails if there is a file `fail`, else writes down how it was called.
STUB = """
import json, os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
if (folder.parent / 'wait').exists():
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  folder.with_suffix('.waits').touch()
  while not (folder.parent / 'go').exists():
    time.sleep(0.02)
if (folder.parent / 'fail').exists():
  sys.exit(7)
folder.mkdir(parents=True, exist_ok=True)
about = {'arguments': sys.argv[2:], 'platform': os.environ.get('JAX_PLATFORMS')}
(folder / 'done.json').write_text(json.dumps(about))
"""
SAVES = 'signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))'


@pytest.fixture
def stub(tmp_path, monkeypatch):
  """A function that makes a step of a given name, whose program writes done.json."""
  (tmp_path / 'stub_program.py').write_text(STUB)
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))
  monkeypatch.setattr(pipeline, '_POLL_S', 0.02)

  def make(name, is_shared=True, draft=None, limit_s=0.0):
    folder = epath.Path(tmp_path) / name
    command = ('stub_program', str(draft or folder))
    return Step(folder, command, (folder / 'done.json').exists, is_shared, draft, limit_s)

  return make


# What is run, and what is not.


def test_steps_run_once_and_in_order(stub, capfd):
  steps = [stub('a'), stub('b'), stub('c')]
  assert Runner(False).run(steps) == 0
  assert all(step.is_finished() for step in steps)
  times = [(step.folder / 'done.json').stat().mtime for step in steps]
  assert Runner(False).run(steps) == 0
  assert [(step.folder / 'done.json').stat().mtime for step in steps] == times
  out = capfd.readouterr().out
  assert [out.count(f'{step.folder} is finished') for step in steps] == [1, 1, 1]
  assert out.count('-m stub_program') == 3


def test_a_failure_ends_it_and_the_next_start_goes_on(stub, tmp_path, capfd):
  steps = [stub('a'), stub('b'), stub('c')]
  assert Runner(False).run(steps[:1]) == 0
  (tmp_path / 'fail').touch()
  assert Runner(False).run(steps) == 7
  assert first_unfinished(steps) == 1
  assert f'{steps[1].folder}: failed with exit status 7' in capfd.readouterr().err
  (tmp_path / 'fail').unlink()
  assert Runner(False).run(steps) == 0


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('handles', [True, False])
def test_signals_are_passed_on(stub, tmp_path, handles, number, capfd):
  saves = f'signal.signal({int(number)}, lambda *_: sys.exit({128 + number}))'
  # Or it saves nothing, such as an evaluation.
  text = STUB.replace(SAVES, saves if handles else f'signal.signal({int(number)}, signal.SIG_DFL)')
  (tmp_path / 'stub_program.py').write_text(text)
  steps = [stub('a'), stub('b')]
  (tmp_path / 'wait').touch()
  runner = Runner(False)

  def stop_when_it_waits():
    while not (tmp_path / 'a.waits').exists():
      time.sleep(0.02)
    runner.stop(number, None)

  thread = threading.Thread(target=stop_when_it_waits)
  thread.start()
  assert runner.run(steps) == 128 + number
  thread.join()
  assert not steps[0].is_finished() and not (tmp_path / 'b.waits').exists()
  assert 'was stopped; the same command goes on from here' in capfd.readouterr().err
  (tmp_path / 'wait').unlink()
  assert Runner(False).run(steps) == 0


def test_sigterm_before_a_step_starts_none(stub):
  runner = Runner(False)
  runner.stop(signal.SIGTERM, None)
  step = stub('a')
  assert runner.run([step]) == 143 and not step.folder.exists()
  assert runner.run([]) == 0  # nothing was left to do


def test_a_step_that_leaves_nothing_is_an_error(stub, monkeypatch):
  monkeypatch.setattr(pipeline, '_SETTLE_S', 0.1)
  step = stub('a')
  never = Step(step.folder, step.command, lambda: False)
  with pytest.raises(RuntimeError, match='not finished after 0.1 s'):
    Runner(False).run([never])


def test_what_was_made_from_something_older_is_refused(stub):
  steps = [stub('a'), stub('b'), stub('c')]
  assert Runner(False).run(steps) == 0
  (steps[0].folder / 'done.json').unlink()
  with pytest.raises(ValueError, match=r'/a is not finished, but .*/b, .*/c is there'):
    first_unfinished(steps)


# Several processes.


def test_who_does_what_of_two_processes(stub, monkeypatch):
  monkeypatch.setenv('JAX_COORDINATOR_ADDRESS', 'nowhere:1')
  monkeypatch.setenv('JAX_NUM_PROCESSES', '2')
  monkeypatch.setenv('JAX_PROCESS_ID', '0')
  monkeypatch.setenv('JAX_PLATFORMS', 'tpu')
  shared, alone = stub('a'), stub('b', is_shared=False)
  assert Runner(True).run([shared, alone]) == 0
  called = [json.loads((step.folder / 'done.json').read_text()) for step in (shared, alone)]
  assert called[0] == {'arguments': ['--distributed'], 'platform': 'tpu'}
  assert called[1] == {'arguments': [], 'platform': 'cpu'}
  # The other process waits for what is not its own.
  monkeypatch.setenv('JAX_PROCESS_ID', '1')
  other = stub('c', is_shared=False)

  def make_it():
    other.folder.mkdir()
    (other.folder / 'done.json').touch()

  threading.Timer(0.2, make_it).start()
  assert Runner(True).run([shared, alone, other]) == 0
  assert (other.folder / 'done.json').read_text() == ''  # its program was not run


def test_others_wait_for_the_first_one_no_longer_than_they_may(stub, monkeypatch, capfd):
  monkeypatch.setenv('SCORE_PROCESS_ID', '1')
  step = stub('a', is_shared=False, limit_s=0.1)
  assert Runner(True).run([step]) == STATUS
  said = capfd.readouterr()
  assert f'{step.folder}: the first process makes it' in said.out
  assert f'{step.folder}: process 0 makes it, and gave no sign of life for 0.1 s' in said.err
  assert 'config.train.hang_s' in said.err


def test_others_wait_while_the_first_one_gives_signs_of_life(stub, monkeypatch):
  monkeypatch.setenv('SCORE_PROCESS_ID', '1')
  step = stub('a', is_shared=False, limit_s=1.0)

  def make_it():
    with signs_of_life(step.signs, 0.1):
      time.sleep(2.5)
      step.folder.mkdir()
      (step.folder / 'done.json').touch()

  threading.Thread(target=make_it).start()
  assert Runner(True).run([step]) == 0
  assert not step.signs.exists()


def test_the_first_one_gives_signs_of_life(stub, monkeypatch):
  given = []

  def watched(path, every_s):
    given.append((path, every_s))
    return signs_of_life(path, every_s)

  monkeypatch.setattr(pipeline, 'signs_of_life', watched)
  monkeypatch.setenv('SCORE_PROCESS_ID', '0')
  steps = [stub('a'), *(stub(f'b{n}', is_shared=False, limit_s=n) for n in (0, 20, 1800))]
  assert Runner(True).run(steps) == 0
  assert given == list(zip([step.signs for step in steps[1:]], [60, 5, 60], strict=True))
  assert not any(step.signs.exists() for step in steps)


# The export.


# An export that is killed the first time.
KILLED_STUB = """
import os, pathlib, signal, sys
from score_jax.formats.hf_export import appearing
folder = pathlib.Path(sys.argv[1])
with appearing(folder) as draft:
  (draft / 'done.json').touch()
  if not (folder.parent / 'killed').exists():
    (folder.parent / 'killed').touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_export_leaves_nothing_behind(stub, tmp_path, monkeypatch):
  configs = [str(ROOT / 'configs' / f'stage{i}_math.py') for i in (1, 2)]
  monkeypatch.setattr(pipeline.tempfile, 'gettempdir', lambda: str(tmp_path / 'temporary'))
  monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{ROOT}')
  (tmp_path / 'stub_program.py').write_text(KILLED_STUB)

  def start(process):
    monkeypatch.setattr(os, 'getpid', lambda: process)
    draft = make_steps(*configs, 'gs://bucket/run')[-1].draft
    return Runner(False).run([stub('bucket', is_shared=False, draft=draft)])

  assert start(1) == 128 + signal.SIGKILL
  assert [name for name in os.listdir(tmp_path / 'temporary') if name.endswith('.tmp')]
  assert start(2) == 0
  assert os.listdir(tmp_path / 'temporary') == ['killed']
  assert os.listdir(tmp_path / 'bucket') == ['done.json']
  others = [make_steps(*configs, f'gs://bucket/{name}')[-1].draft for name in ('run', 'other')]
  assert others[0] != others[1]


def test_a_bucket_gets_the_model_when_it_is_whole(stub, tmp_path):
  configs = [str(ROOT / 'configs' / f'stage{i}_math.py') for i in (1, 2)]
  exported = make_steps(*configs, 'gs://bucket/run')[-1]
  assert str(exported.folder) == 'gs://bucket/run/exported'
  assert f'--workdir={exported.draft}' in exported.command and '://' not in str(exported.draft)
  # Any other folder stands for the bucket.
  draft = epath.Path(tmp_path) / 'draft'
  step = stub('bucket', is_shared=False, draft=draft)
  draft.mkdir()
  (draft / 'old').touch()  # of a start that was killed
  assert Runner(False).run([step]) == 0
  assert [file.name for file in step.folder.iterdir()] == ['done.json'] and not draft.exists()
  # Stopped on the way, the folder is not yet a model.
  draft.mkdir()
  for name in ('config.json', 'model.safetensors'):
    (draft / name).write_text(name)
  (draft / 'tokenizer.json').mkdir()  # cannot be read
  target = epath.Path(tmp_path) / 'target'
  with pytest.raises(IsADirectoryError):
    pipeline.publish(draft, target)
  assert [file.name for file in target.iterdir()] == ['model.safetensors'] and draft.exists()
  (draft / 'tokenizer.json').rmdir()
  pipeline.publish(draft, target)
  assert (target / 'config.json').read_text() == 'config.json' and not draft.exists()
