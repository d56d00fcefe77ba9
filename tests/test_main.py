"""The command line: what a user sees first, and what bad input gets."""

import json
import time

import jax
import pytest
from makers import ROOT

from score_jax.core.config import default_config
from score_jax.core.config_check import check_config
from score_jax.setup.checks import check_batch, check_problems, missing_inputs
from score_jax.training.update import make_step_options

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


def test_missing_inputs_lists_each_once():
  config = default_config()
  config.task.name = 'math'
  config.init.required = True
  lines = missing_inputs(config)
  assert len(lines) == 3
  config.model.checkpoint = 'embedded'
  config.data.path = str(ROOT)
  config.init.path = str(ROOT)
  assert missing_inputs(config) == []


@pytest.mark.parametrize(
  ('problems', 'samples', 'parts', 'devices', 'advice'),
  [
    (3, 2, 1, 4, 'take other numbers'),
    (4, 2, 3, 1, 'take micro_batches=2$'),
    (64, 8, 8, 128, 'take micro_batches=4$'),
    (0, 2, 1, 1, 'at least 1'),
  ],
)
def test_a_batch_that_does_not_divide_is_refused(problems, samples, parts, devices, advice):
  config = default_config()
  config.rollout.problems_per_step = problems
  config.rollout.samples_per_problem = samples
  config.train.micro_batches = parts
  with pytest.raises(ValueError, match=f'problems_per_step={problems}.*{advice}'):
    check_batch(config, devices)


def test_traces_that_do_not_divide_are_refused():
  config = default_config()
  config.supervised.batch = 63
  check_batch(config, 2)  # trains by RL
  config.supervised.method = 'star'
  with pytest.raises(ValueError, match=r'supervised\.batch=63 .* by 2 devices; take 64$'):
    check_batch(config, 2)


def test_more_problems_than_there_are_cannot_be_sampled():
  config = default_config()
  config.supervised.num_problems, config.rollout.problems_per_step = 41, 8
  check_problems(config, 40)  # trains by RL
  config.supervised.method = 'star'
  with pytest.raises(ValueError, match='supervised.num_problems=41, but there are 40'):
    check_problems(config, 40)


def test_processes_share_the_problems_of_a_step(monkeypatch):
  config = default_config()
  config.rollout.problems_per_step = 3
  check_problems(config, 3)
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  with pytest.raises(ValueError, match='problems_per_step=3 is not a multiple of 2 processes'):
    check_problems(config, 10)


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('train.checkpoint_every_steps', 0, 'must be at least 1'),
    ('eval.batch', 0, 'must be at least 1'),
    ('objective.baseline', 'mean', 'baseline'),
    ('objective.kl_estimator', 'k1', 'zero expected gradient'),
    ('rollout.temperature', 0.0, 'temperature'),
    ('rollout.samples_per_problem', 1, 'samples_per_problem=1'),
  ],
)
def test_numbers_that_cannot_work_are_refused_before_anything_runs(key, value, message):
  config = default_config()
  with config.unlocked():
    config.update_from_flattened_dict({key: value})
  with pytest.raises(ValueError, match=message):
    check_config(config)
    make_step_options(config)
