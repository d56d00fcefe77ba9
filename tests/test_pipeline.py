"""The pipeline: what is finished is not done again, what was stopped goes on, and who does what."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest
from etils import epath

from score_jax import pipeline
from score_jax.model import hf_folder
from score_jax.pipeline import Runner, Step, first_unfinished, make_steps
from score_jax.runs.metrics import read_metrics
from score_jax.runs.stored import committed_steps

ROOT = pathlib.Path(__file__).resolve().parent.parent

PIPES = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT}
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


@pytest.fixture
def stub(tmp_path, monkeypatch):
  """A function that makes a step of a given name, whose program writes done.json."""
  (tmp_path / 'stub_program.py').write_text(STUB)
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))
  monkeypatch.setattr(pipeline, '_POLL_S', 0.02)

  def make(name, is_shared=True, draft=None):
    folder = epath.Path(tmp_path) / name
    command = ('stub_program', str(draft or folder))
    return Step(folder, command, (folder / 'done.json').exists, is_shared, draft)

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


@pytest.mark.parametrize('handles', [True, False])
def test_sigterm_is_passed_on(stub, tmp_path, handles, capfd):
  if not handles:  # such as an evaluation, which saves nothing
    (tmp_path / 'stub_program.py').write_text(STUB.replace('lambda *_: sys.exit(143)', '0'))
  steps = [stub('a'), stub('b')]
  (tmp_path / 'wait').touch()
  runner = Runner(False)

  def stop_when_it_waits():
    while not (tmp_path / 'a.waits').exists():
      time.sleep(0.02)
    runner.stop(signal.SIGTERM, None)

  thread = threading.Thread(target=stop_when_it_waits)
  thread.start()
  assert runner.run(steps) == 143
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


# The commands.


def test_the_steps_of_the_shipped_configs(tmp_path):
  configs = [str(ROOT / 'configs' / f'stage{i}_math.py:smollm2_135m') for i in (1, 2)]
  given = ["--config.data.path=it's here", '--config.train.num_steps=3']
  stage1, stage2, evaluation, exported = make_steps(*configs, tmp_path, given)
  assert stage1.command == (
    'score_jax.main',
    f'--workdir={tmp_path}/stage1',
    f'--config={configs[0]}',
    *given,
  )
  # Evaluation and export see the same paths and mesh as Stage II.
  flags = (f'--config={configs[1]}', f'--config.init.path={tmp_path}/stage1', *given)
  of_run = (f'--run={tmp_path}/stage2', '--as_trained', *flags)
  assert stage2.command == ('score_jax.main', f'--workdir={tmp_path}/stage2', *flags)
  assert evaluation.command == ('score_jax.evaluate', f'--workdir={tmp_path}/evaluation', *of_run)
  assert exported.command == ('score_jax.export', f'--workdir={tmp_path}/exported', *of_run)
  assert stage1.is_shared and stage2.is_shared and evaluation.is_shared and not exported.is_shared
  # A stage is finished when there is a checkpoint of its last update.
  for step in ('2', 'damaged-3', '3.orbax-checkpoint-tmp-1'):
    (tmp_path / 'stage1' / 'checkpoints' / step).mkdir(parents=True)
  assert not stage1.is_finished()
  (tmp_path / 'stage1' / 'checkpoints' / '3').mkdir()
  assert stage1.is_finished() and not stage2.is_finished()


def test_the_number_of_updates(tmp_path):
  config = str(ROOT / 'configs' / 'stage1_math.py')
  assert pipeline.num_updates(config, []) == 1500
  overrides = ['--config.train.num_steps=7', '--config.seed=1', '--config.train.num_steps=9']
  assert pipeline.num_updates(f'{config}:smollm2_135m', overrides) == 9
  with pytest.raises(ValueError, match='num_steps=x is no number'):
    pipeline.num_updates(config, ['--config.train.num_steps=x'])
  with pytest.raises(ValueError, match="no stage of RL: supervised.method='star'"):
    pipeline.num_updates(f'{ROOT}/configs/baselines.py:star_d', [])


def test_a_bucket_gets_the_model_when_it_is_whole(stub, tmp_path):
  configs = [str(ROOT / 'configs' / f'stage{i}_math.py') for i in (1, 2)]
  exported = make_steps(*configs, 'gs://bucket/run')[-1]
  assert str(exported.folder) == 'gs://bucket/run/exported'
  assert f'--workdir={exported.draft}' in exported.command and '://' not in str(exported.draft)
  # Any other folder stands for the bucket.
  draft = epath.Path(tmp_path) / 'draft'
  step = stub('bucket', is_shared=False, draft=draft)
  draft.mkdir()
  (draft / 'half').touch()  # of a start that was killed
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


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['stray'], "unknown arguments ['stray']"),
    (['--config.seed', '1'], "unknown arguments ['--config.seed', '1']"),
    (['--stage1=nowhere.py'], 'there is no config file nowhere.py'),
    (
      [f'--stage1={ROOT}/configs/stage1_sums.py:x'],
      f'{ROOT}/configs/stage1_sums.py:x is no config',
    ),
    ([f'--stage2={ROOT}/README.md'], f'{ROOT}/README.md is no config: SyntaxError'),
    (['--config.init.path=x'], '--config.init.path=...: Stage II begins from Stage I'),
  ],
)
def test_bad_command_lines_get_a_message(arguments, message, tmp_path, capsys):
  config = f'{ROOT}/configs/stage1_math.py'
  given = [f'--stage1={config}', f'--stage2={config}', f'--workdir={tmp_path}', *arguments]
  with pytest.raises(SystemExit, match='2'):
    pipeline.main(given)
  assert f'error: {message}' in capsys.readouterr().err


def test_a_dry_run_runs_nothing(tmp_path, capsys):
  config = f'{ROOT}/configs/stage1_math.py'
  (tmp_path / 'stage1' / 'checkpoints' / '1500').mkdir(parents=True)
  given = [f'--stage1={config}', f'--stage2={config}', f'--workdir={tmp_path}']
  assert pipeline.main([*given, '--config.data.path=a b', '--dry_run']) == 0
  lines = capsys.readouterr().out.splitlines()
  assert [line.partition(':')[0] for line in lines] == ['finished', 'to do', 'to do', 'to do']
  assert lines[1].startswith(
    f'to do: python -m score_jax.main --workdir={tmp_path}/stage2 --config='
  )
  assert lines[1].endswith(f" --config.init.path={tmp_path}/stage1 '--config.data.path=a b'")
  assert os.listdir(tmp_path) == ['stage1']


# The real programs.


@pytest.mark.slow
def test_a_pipeline_that_was_stopped_goes_on(tiny_run, tmp_path):
  def start(num_steps, *more):
    command = [sys.executable, '-m', 'score_jax.pipeline', f'--stage1={tiny_run}']
    command += [f'--stage2={tiny_run}', f'--workdir={tmp_path}']
    command += [f'--config.train.num_steps={num_steps}', *more]
    return subprocess.Popen(command, cwd=ROOT, text=True, **PIPES)

  def wait_for(process, path):
    deadline = time.monotonic() + 200
    while not path.exists():
      assert time.monotonic() < deadline and process.poll() is None
      time.sleep(0.05)

  process = start(5000)
  wait_for(process, tmp_path / 'stage1' / 'checkpoints' / '2')
  process.send_signal(signal.SIGTERM)
  output = process.communicate(timeout=200)[0]
  assert process.returncode == 143, output
  saved = committed_steps(tmp_path / 'stage1' / 'checkpoints')[-1]
  last = saved + 2
  # Stopped again in the step of evaluation, or at the latest after it.
  process = start(last)
  wait_for(process, tmp_path / 'stage2' / 'checkpoints' / str(last))
  process.send_signal(signal.SIGTERM)
  output = process.communicate(timeout=200)[0]
  assert process.returncode == 143, output
  assert not (tmp_path / 'exported').exists()
  process = start(last)
  output = process.communicate(timeout=200)[0]
  assert process.returncode == 0, output
  assert f'{tmp_path}/stage2 is finished' in output
  for stage in ('stage1', 'stage2'):  # each update once
    steps = [record['step'] for record in read_metrics(tmp_path / stage)]
    assert steps == list(range(1, last + 1))
  assert json.loads((tmp_path / 'evaluation' / 'metrics.json').read_text())['num_problems'] == 10
  assert hf_folder.read_config(tmp_path / 'exported').num_layers == 1
  # All is finished; and a longer Stage I would leave the rest behind.
  process = start(last)
  output = process.communicate(timeout=60)[0]
  assert process.returncode == 0 and output.count(' is finished\n') == 4, output
  process = start(last + 1)
  output = process.communicate(timeout=60)[0]
  assert process.returncode == 2 and 'stage1 is not finished, but' in output, output
  # Nor is another policy evaluated than was trained.
  (tmp_path / 'evaluation' / 'metrics.json').unlink()
  (tmp_path / 'exported').rename(tmp_path / 'away')
  process = start(last, '--config.seed=8')
  output = process.communicate(timeout=100)[0]
  assert process.returncode == 2 and 'seed: 0 in the run, 8 now' in output, output
