"""The command line: what a user sees first, and what bad input gets."""

import json
import time

import pytest

QUICK = (
  '--config.model.checkpoint=embedded',
  '--config.model.preset=',
  '--config.task.name=arithmetic',
  '--config.rollout.prompt_tokens=16',
  '--config.rollout.turn_tokens=(7,10)',
)


def program(run_python, *args):
  return run_python('-m', 'score_jax.main', *args)


@pytest.mark.parametrize(
  ('config', 'flags'),
  [
    ('configs/stage1_math.py', ['model.checkpoint', 'data.path']),
    ('configs/stage2_math.py', ['model.checkpoint', 'data.path', 'init.path']),
    ('configs/stage2_math.py:smollm2_135m', ['model.checkpoint', 'data.path', 'init.path']),
  ],
)
def test_bare_command_names_every_missing_path_within_10_s(run_python, config, flags):
  start = time.monotonic()
  done = program(run_python, f'--config={config}')
  assert time.monotonic() - start < 10
  assert done.returncode == 2
  for flag in flags:
    assert f'--config.{flag}=PATH' in done.stderr
  assert 'Traceback' not in done.stderr


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    ([], '--config is not set'),
    (['--config=configs/nope.py'], 'nope.py'),
    (['--config=configs/stage1_math.py', '--config.modle.x=3'], 'model'),
    (['--config=configs/stage1_math.py', '--config.seed=abc'], 'abc'),
    (['--config=configs/stage1_math.py', 'stray'], 'stray'),
    (
      ['--config=configs/stage1_math.py', '--config.data.path=/nowhere'],
      'there is no /nowhere; set --config.data.path',
    ),
    (
      ['--config=configs/stage1_sums.py', '--config.model.checkpoint=README.md'],
      'README.md',
    ),
  ],
)
def test_bad_command_lines_get_a_message(run_python, args, message):
  done = program(run_python, *args)
  assert done.returncode != 0
  assert message in done.stderr
  assert 'Traceback' not in done.stderr


def test_dry_run_shows_config_stage_and_one_episode(run_python, tmp_path):
  done = program(
    run_python,
    '--config=configs/stage1_sums.py',
    *QUICK,
    "--config.task.level_weights={'5': 1.0}",
    '--dry_run',
    f'--workdir={tmp_path / "run"}',
  )
  assert done.returncode == 0, done.stderr
  assert 'kl_weight' in done.stdout
  assert '| 1 | 0 | 0 | 0.1 | base |' in done.stdout
  assert 'sampled' in done.stdout and 'turn 2: reward' in done.stdout
  assert not (tmp_path / 'run').exists()


def test_a_directory_of_another_run_is_refused(run_python, tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps({'seed': 7}))
  done = program(
    run_python,
    '--config=configs/stage1_sums.py',
    *QUICK,
    "--config.task.level_weights={'5': 1.0}",
    f'--workdir={tmp_path}',
  )
  assert done.returncode == 2
  assert 'another configuration' in done.stderr
  assert 'seed: 7 in the run, 0 now' in done.stderr
