"""The whole replication as a user runs it, and the command lines of its rows."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from etils import epath
from makers import ROOT
from replication_rows import TINY_STEPS, records_of, write_tiny

from score_jax import replicate
from score_jax.runs.metrics import read_metrics


def test_a_row_s_command_line_is_that_of_all_rows(monkeypatch):
  argv = ['replicate', '--seeds=2', '--rows', 'a,b', '--jobs=3', '--workdir', 'x', '--config.a=1']
  monkeypatch.setattr(replicate.sys, 'argv', argv)
  assert replicate._command('a', epath.Path('/x'))[3:] == [
    *('--seeds=2', '--config.a=1', '--workdir=/x', '--one_row=a')
  ]


@pytest.fixture
def start(tmp_path_factory, tmp_path):
  """Starts the command, in a session of its own: whoever is left of it can be found."""
  processes = []
  # Few evaluations: compiling them is most of the time.
  config = write_tiny(tmp_path_factory.mktemp('tiny'), ", evaluations=('sampled', 'fixed')")

  def begin(*args) -> subprocess.Popen:
    names = ('--rows', 'base,stage1,score')
    options = (f'--config={config}', *names, '--seeds=1', f'--workdir={tmp_path}', *args)
    process = subprocess.Popen(
      [sys.executable, '-m', 'score_jax.replicate', *options],
      cwd=ROOT,
      env=os.environ | {'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      start_new_session=True,
    )
    processes.append(process)
    return process

  yield begin
  for process in processes:
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)
      process.communicate()


def finish(process) -> str:
  output, _ = process.communicate()
  assert process.returncode == 0, output
  assert 'Traceback' not in output
  return output


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stopped_replication_goes_on_to_its_report(start, tmp_path):
  stage1 = tmp_path / 'stage1' / 'seed0'
  process = start()
  while not (stage1 / 'checkpoints' / '2').exists():
    assert process.poll() is None, process.communicate()[0]
    time.sleep(0.01)
  process.send_signal(signal.SIGINT)
  output, _ = process.communicate()
  assert process.returncode == 130, output
  assert f'interrupted; each row is kept in {tmp_path} as far as it came' in output
  with pytest.raises(ProcessLookupError):
    os.killpg(process.pid, 0)
  assert not (stage1 / 'row.json').exists()
  assert 'stopped by SIGTERM' in (tmp_path / 'stage1' / 'log.txt').read_text()
  saved = max(int(p.name) for p in (stage1 / 'checkpoints').iterdir() if p.name.isdigit())
  assert 2 <= saved < TINY_STEPS

  finish(start('--report_only'))
  text = (tmp_path / 'report.md').read_text()
  assert 'not finished: seed 0' in text
  assert not (stage1 / 'row.json').exists()

  output = finish(start('--jobs=2'))
  assert 'report.html' in output
  for row in ('stage1', 'score'):
    steps = [r['step'] for r in read_metrics(tmp_path / row / 'seed0')]
    assert steps == list(range(1, TINY_STEPS + 1))
  sampled = records_of(tmp_path / 'base' / 'seed0', 'sampled')
  fixed = records_of(tmp_path / 'score' / 'seed0', 'fixed')
  assert [r['answers'][0] for r in sampled] == [r['answers'][0] for r in fixed]
  report = json.loads((tmp_path / 'report.json').read_text())
  states = {name: row['state'] for name, row in report['rows'].items()}
  finished = {name for name, state in states.items() if state == 'finished'}
  assert finished == {'base', 'stage1', 'score'}
  assert states['self_refine'].startswith('not applicable')
  assert 'worked_base' not in states  # trained for others only
  for name in ('report.md', 'report.html'):
    text = (tmp_path / name).read_text()
    assert all(title in text for title in ('Base model', 'SCoRe, Stage I only', 'STaR, D+'))
  assert list((tmp_path / 'figures').iterdir())
