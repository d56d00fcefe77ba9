"""The command line: what a user sees first, and what bad input gets."""

import json
import time

from forked import run_command_lines
from makers import SMALL_SUMS


def program(run_python, *args):
  return run_python('-m', 'score_jax.main', *args)


def test_a_bare_command_names_every_missing_path_within_10_s(run_python):
  start = time.monotonic()
  done = program(run_python, '--config=configs/stage2_math.py')
  assert time.monotonic() - start < 10
  assert done.returncode == 2
  for flag in ('model.checkpoint', 'data.path', 'init.path'):
    assert f'--config.{flag}=PATH' in done.stderr
  assert 'Traceback' not in done.stderr


MISSING = ['--config.model.checkpoint=PATH', '--config.data.path=PATH']
MISTAKES = [
  (['--config=configs/stage1_math.py'], MISSING),
  (['--config=configs/stage2_math.py:smollm2_135m'], [*MISSING, '--config.init.path=PATH']),
  ([], ['--config is not set']),
  (['--config=configs/nope.py'], ['nope.py']),
  (['--config=configs/stage1_math.py', '--config.modle.x=3'], ['model']),
  (['--config=configs/stage1_math.py', '--config.seed=abc'], ['abc']),
  (['--config=configs/stage1_math.py', 'stray'], ['stray']),
  (
    ['--config=configs/stage1_math.py', '--config.data.path=/nowhere'],
    ['there is no /nowhere; set --config.data.path'],
  ),
  (['--config=configs/stage1_sums.py', '--config.model.checkpoint=README.md'], ['README.md']),
]


def test_bad_command_lines_get_a_message(tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps({'seed': 7}))
  mistakes = [
    *MISTAKES,
    (
      [*SMALL_SUMS, f'--workdir={tmp_path}'],  # a directory of another run
      ['another configuration', 'seed: 7 in the run, 0 now'],
    ),
  ]
  found = run_command_lines('score_jax.main', [line for line, _ in mistakes])
  for (line, messages), (status, errors) in zip(mistakes, found, strict=True):
    assert status == 2 and 'Traceback' not in errors, (line, errors)
    for message in messages:
      assert message in errors, (line, errors)


def test_dry_run_shows_config_stage_and_one_episode(run_python, tmp_path):
  done = program(
    run_python,
    *SMALL_SUMS,
    '--dry_run',
    f'--workdir={tmp_path / "run"}',
  )
  assert done.returncode == 0, done.stderr
  assert 'kl_weight' in done.stdout
  assert '| 1 | 0 | 0 | 0.1 | base |' in done.stdout
  assert '| sampling, at least |' in done.stdout and '| update, by the compiler |' in done.stdout
  assert 'sampled' in done.stdout and 'turn 2: reward' in done.stdout
  assert not (tmp_path / 'run').exists()
