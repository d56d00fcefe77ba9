"""What the launchers start, for once really: a checkout from a bundle, processes as hosts."""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from makers import ROOT


@pytest.mark.skipif(shutil.which('git') is None, reason='there is no git')
def test_the_bundle_becomes_a_checkout(tmp_path):
  """Installed by the command of tpu.sh, and installed again after the next commit."""
  golden = (ROOT / 'tests' / 'launch' / 'tpu_install.txt').read_text(encoding='utf-8').splitlines()
  make_bundle = shlex.split(golden[1])
  [command] = [word for word in shlex.split(golden[-1]) if word.startswith('--command=')]
  command = command.removeprefix('--command=').partition(' && python3 ')[0]
  source, target = tmp_path / 'source', tmp_path / 'score_jax'
  (source / 'build' / 'launch').mkdir(parents=True)

  def run(command, folder):
    return subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout

  run(['git', 'init', '--quiet'], source)
  for i in range(2):
    (source / 'file').write_text(str(i))
    run(['git', 'add', 'file'], source)
    run(['git', '-c', 'user.name=n', '-c', 'user.email=e', 'commit', '-m', 'm'], source)
    run(make_bundle, source)
    shutil.copy(source / make_bundle[-2], tmp_path)
    run(['bash', '-c', command], tmp_path)
    head = ['git', 'rev-parse', 'HEAD']
    assert run(head, source) == run(head, target) and (target / 'file').read_text() == str(i)


def test_what_was_stopped_has_not_failed(tmp_path):
  """`launch/tpu.sh watch` would take it for a worker that gave up. Here is nothing to reset."""
  golden = (ROOT / 'tests' / 'launch' / 'tpu_stop.txt').read_text(encoding='utf-8')
  [command] = [word for word in shlex.split(golden) if word.startswith('--command=')]
  sudo = tmp_path / 'sudo'
  sudo.write_text('#!/bin/bash\necho "$@"\n[[ $2 == stop ]]\n')
  sudo.chmod(0o755)
  environment = os.environ | {'PATH': f'{tmp_path}:{os.environ["PATH"]}'}
  command = ['bash', '-c', command.removeprefix('--command=')]
  done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
  assert done.stdout.splitlines() == [
    'systemctl stop score_jax',
    'systemctl reset-failed score_jax',
  ]


def start_two(workdir, config, num_steps):
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    port = probe.getsockname()[1]
  environment = {'SCORE_PORT': str(port), 'SCORE_DEVICES': '2', 'SCORE_PYTHON': sys.executable}
  environment['JAX_ENABLE_COMPILATION_CACHE'] = 'false'  # see tests/cli/test_processes.py
  command = [
    ROOT / 'launch' / 'local_two.sh',
    '--',
    f'--stage1={config}',
    f'--stage2={config}',
  ]
  command += [f'--workdir={workdir}', f'--config.train.num_steps={num_steps}']
  return subprocess.Popen(
    command,
    env=os.environ | environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


@pytest.mark.slow
def test_two_processes_stop_and_go_on(tiny_run, tmp_path):
  workdir = tmp_path / 'two runs'
  process = start_two(workdir, tiny_run, 5000)
  deadline = time.monotonic() + 200
  while not (workdir / 'stage1' / 'checkpoints' / '2').exists():
    assert time.monotonic() < deadline and process.poll() is None
    time.sleep(0.05)
  process.send_signal(signal.SIGTERM)
  output = process.communicate(timeout=200)[0]
  assert process.returncode == 143, output
  assert output.count('stage1: was stopped; the same command goes on from here') == 2
  checkpoints = (workdir / 'stage1' / 'checkpoints').iterdir()
  saved = max(int(p.name) for p in checkpoints if p.name.isdigit())
  process = start_two(workdir, tiny_run, saved + 1)
  output = process.communicate(timeout=280)[0]
  assert process.returncode == 0, output
  assert output.count('exported: the first process makes it') == 1
  assert (workdir / 'evaluation' / 'metrics.json').exists()
  assert (workdir / 'exported' / 'config.json').exists()


def test_one_of_two_that_fails_ends_the_other(tmp_path):
  """Wrong arguments: both fail by themselves. A lost process: the other is told to end."""
  stub = tmp_path / 'python'
  stub.write_text(
    '#!/bin/bash\n'
    '[[ $JAX_PROCESS_ID == 1 ]] && exit 7\n'
    f'trap "echo told >{tmp_path}/told; exit 143" TERM\n'
    'while true; do sleep 0.1; done\n'
  )
  stub.chmod(0o755)
  done = subprocess.run(
    [ROOT / 'launch' / 'local_two.sh', '--', '--x'],
    env=os.environ | {'SCORE_PYTHON': str(stub)},
    capture_output=True,
    timeout=60,
  )
  assert done.returncode == 7 and (tmp_path / 'told').exists()
