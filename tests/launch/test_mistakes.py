"""The launchers: settings, verbs and arguments that are wrong get a message, and nothing is run."""

import os
import subprocess

import pytest
from makers import ROOT

LAUNCH = ROOT / 'launch'
SETTINGS = {
  'SCORE_PROJECT': 'my-project',
  'SCORE_ZONE': 'us-east5-b',
  'SCORE_NAME': 'score',
  'SCORE_TYPE': 'v6e-16',
  'SCORE_CLUSTER': 'cluster',
  'SCORE_IMAGE': 'us-docker.pkg.dev/my-project/score/score_jax',
}


@pytest.fixture
def launch(tmp_path):
  """A function that runs a launcher. A program of the cloud that it calls leaves a file there."""
  for name in ('gcloud', 'xpk', 'kubectl', 'docker', 'git'):
    (tmp_path / name).write_text('#!/bin/bash\ntouch "$0.called"\n')
    (tmp_path / name).chmod(0o755)

  def run(script, *arguments, **settings):
    environment = {key: value for key, value in os.environ.items() if not key.startswith('SCORE_')}
    environment |= SETTINGS | {'PATH': f'{tmp_path}:{os.environ["PATH"]}'} | settings
    command = [LAUNCH / script, *arguments]
    return subprocess.run(
      command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
    )

  return run


@pytest.mark.parametrize(
  ('script', 'verb', 'settings', 'message'),
  [
    ('tpu.sh', 'create', {'SCORE_ZONE': ''}, 'SCORE_ZONE is not set'),
    ('tpu.sh', 'queue', {'SCORE_TYPE': 'tpu7x-16'}, 'no runtime is known for SCORE_TYPE=tpu7x-16'),
    ('tpu.sh', 'watch', {}, 'the arguments of the pipeline are missing'),
    ('tpu.sh', 'destroy', {}, 'unknown verb destroy'),
    ('tpu.sh', 'stop --force', {}, 'unknown option --force'),
    ('tpu.sh', 'create --worker=3', {}, 'create --worker=3: --worker=NUMBER or'),
    ('tpu.sh', 'logs --worker=', {}, 'logs --worker=: --worker=NUMBER or'),
    ('tpu.sh', 'create -- junk', {}, 'create takes no arguments of the pipeline: junk'),
    ('tpu.sh', 'create', {'SCORE_SPOT': 'false'}, 'SCORE_SPOT=false must be 1 for spot'),
    ('tpu.sh', 'watch -- x', {'SCORE_POLL_S': '1m'}, 'SCORE_POLL_S=1m must be a number'),
    ('tpu.sh', 'delete', {'SCORE_NAME': 'Score'}, 'SCORE_NAME=Score must be letters a-z'),
    ('tpu.sh', 'delete', {'SCORE_NAME': '.*'}, 'SCORE_NAME=.* must be'),
    ('tpu.sh', 'delete', {'SCORE_NAME': '2nd'}, 'SCORE_NAME=2nd must be'),
    ('xpk.sh', 'status -- junk', {}, 'status takes no arguments of the pipeline: junk'),
    ('xpk.sh', 'cluster', {'SCORE_SPOT': 'no'}, 'SCORE_SPOT=no must be 1 for spot'),
    ('xpk.sh', 'cluster', {'SCORE_SLICES': '0'}, 'SCORE_SLICES=0 must be a whole number'),
    ('xpk.sh', 'start -- x', {'SCORE_SLICES': '2x'}, 'SCORE_SLICES=2x must be a whole number'),
    ('xpk.sh', 'start -- x', {'SCORE_NAME': 'my_run'}, 'SCORE_NAME=my_run must be letters a-z'),
    ('xpk.sh', 'start', {}, 'the arguments of the pipeline are missing'),
    ('xpk.sh', 'image', {'SCORE_IMAGE': ''}, 'SCORE_IMAGE is not set'),
    ('local_two.sh', '--', {}, 'the arguments of the pipeline are missing'),
  ],
)
def test_mistakes_get_a_message_and_run_nothing(script, verb, settings, message, launch, tmp_path):
  done = launch(script, *verb.split(), **settings)
  assert done.returncode == 2 and f'error: {message}' in done.stderr
  assert not list(tmp_path.glob('*.called'))


def test_settings_of_their_form_are_taken(launch, tmp_path):
  forms = {'SCORE_NAME': 'my-run-2', 'SCORE_SLICES': '10', 'SCORE_POLL_S': '0.5'}
  for spot, flag in (('', '--on-demand'), ('0', '--on-demand'), ('1', '--spot')):
    done = launch('xpk.sh', 'cluster', SCORE_SPOT=spot, **forms)
    assert done.returncode == 0 and f' --num-slices=10 {flag} ' in done.stderr
  assert (tmp_path / 'xpk.called').exists()
