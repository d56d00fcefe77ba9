"""The pipeline's command line: its steps, what is refused, and the real programs."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from makers import ROOT

from score_jax import pipeline
from score_jax.cli.run_input import stage_config
from score_jax.formats import hf_folder
from score_jax.pipeline import make_steps
from score_jax.runs.metrics import read_metrics
from score_jax.runs.stored import committed_steps

PIPES = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT}


def finish_stage(run, config, num_steps):
  """Leaves what a stage that has ended leaves, as far as the pipeline looks at it."""
  (run / 'checkpoints' / str(num_steps)).mkdir(parents=True)
  stored = stage_config(config, []).to_dict() | {'content': {'base': 'a checksum'}}
  (run / 'config.json').write_text(json.dumps(stored))


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
  finish_stage(tmp_path / 'stage1', configs[0], 3)
  assert stage1.is_finished() and not stage2.is_finished()
  # The others wait for the export as long as a run may stand still.
  assert exported.limit_s == 1800
  assert make_steps(*configs, tmp_path, ['--config.train.hang_s=0'])[-1].limit_s == 0


@pytest.mark.parametrize('is_dry', [True, False])
@pytest.mark.parametrize('stage', ['stage1', 'stage2'])
def test_a_stage_that_was_finished_with_other_settings_is_refused(stage, is_dry, tmp_path, capsys):
  config = f'{ROOT}/configs/stage1_math.py'
  for name in ('stage1', 'stage2'):
    finish_stage(tmp_path / name, config, 1500)
  for file in ('evaluation/metrics.json', 'exported/config.json'):
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).touch()
  given = [f'--stage1={config}', f'--stage2={config}', f'--workdir={tmp_path}']
  given += ['--dry_run'] if is_dry else []
  # What may change between two starts may: fewer updates too, another mesh, another place.
  may = ['--config.train.num_steps=9', '--config.mesh=(1,2,1)', '--config.data.path=there']
  path = tmp_path / stage / 'config.json'
  before = path.read_text()
  assert pipeline.main([*given, *may]) == 0
  said = capsys.readouterr().out.splitlines()
  assert [' is finished' in line or 'finished: ' in line for line in said] == [True] * 4
  assert path.read_text() == before  # looking writes nothing
  path.write_text(json.dumps(json.loads(before) | {'seed': 77}))
  with pytest.raises(SystemExit, match='2'):
    pipeline.main(given)
  said = capsys.readouterr().err
  assert f'{tmp_path}/{stage} belongs to a run of another config' in said
  assert 'seed: 77 in the run, 0 now' in said and 'choose another --workdir' in said
  path.unlink()
  with pytest.raises(SystemExit, match='2'):
    pipeline.main(given)
  assert f'{tmp_path}/{stage} holds checkpoints but no config.json' in capsys.readouterr().err


@pytest.mark.parametrize('index', [' 0', 'worker-0', '<html>404', '-1'])
def test_a_number_of_a_process_that_is_none_is_refused_at_once(
  index, tmp_path, monkeypatch, capsys
):
  monkeypatch.setenv('SCORE_PROCESS_ID', index)
  config = f'{ROOT}/configs/stage1_math.py'
  given = [f'--stage1={config}', f'--stage2={config}', f'--workdir={tmp_path}', '--distributed']
  with pytest.raises(SystemExit, match='2'):
    pipeline.main(given)
  assert f'SCORE_PROCESS_ID={index!r} must be a whole number' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['stray'], 'unknown arguments stray;'),
    (['--config.seed', '1'], 'unknown arguments --config.seed 1;'),
    (['--stage1=nowhere.py'], 'there is no config file nowhere.py'),
    (
      [f'--stage1={ROOT}/configs/stage1_sums.py:x'],
      f'{ROOT}/configs/stage1_sums.py: TypeError: get_config() takes 0 positional arguments',
    ),
    ([f'--stage2={ROOT}/README.md'], f'{ROOT}/README.md, line '),
    (
      [f'--stage2={ROOT}/configs/quickstart.py'],
      f'{ROOT}/configs/quickstart.py is no config of a run',
    ),
    (['--config.init.path=x'], '--config.init.path=...: Stage II begins from Stage I'),
    (
      ['--config.nosuch.key=1'],
      f'{ROOT}/configs/stage1_math.py --config.nosuch.key=1 is no config: ',
    ),
    (['--workdir='], '--workdir= is empty'),
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
  finish_stage(tmp_path / 'stage1', config, 1500)
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
def test_a_pipeline_that_was_stopped_goes_on(tiny_run, tmp_path, capsys):
  def arguments_of(num_steps):
    stages = [f'--stage1={tiny_run}', f'--stage2={tiny_run}']
    return [*stages, f'--workdir={tmp_path}', f'--config.train.num_steps={num_steps}']

  def start(num_steps):
    command = [sys.executable, '-m', 'score_jax.pipeline', *arguments_of(num_steps)]
    return subprocess.Popen(command, cwd=ROOT, text=True, **PIPES)

  def wait_for(process, path):
    deadline = time.monotonic() + 200
    while not path.exists():
      assert time.monotonic() < deadline and process.poll() is None
      time.sleep(0.05)

  process = start(5000)
  wait_for(process, tmp_path / 'stage1' / 'checkpoints' / '2')
  with pytest.raises(SystemExit, match='2'):
    pipeline.main(arguments_of(5000))
  assert f'{tmp_path} is being written by process {process.pid} on' in capsys.readouterr().err
  process.send_signal(signal.SIGINT)  # to it alone, where a terminal's would reach both
  output = process.communicate(timeout=200)[0]
  assert process.returncode == 130, output
  assert 'stopped by Ctrl-C; step ' in output
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
  capsys.readouterr()
  assert pipeline.main(arguments_of(last)) == 0
  assert capsys.readouterr().out.count(' is finished\n') == 4
  with pytest.raises(SystemExit, match='2'):
    pipeline.main(arguments_of(last + 1))
  assert 'stage1 is not finished, but' in capsys.readouterr().err
  # Nor is it gone on with other settings.
  with pytest.raises(SystemExit, match='2'):
    pipeline.main([*arguments_of(last), '--config.seed=8'])
  assert 'seed: 0 in the run, 8 now' in capsys.readouterr().err
