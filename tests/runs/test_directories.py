"""Paths that are runs, and what is said of those that are not."""

import json

import numpy as np
import pytest

from score_jax.runs.checkpoints import Checkpoints
from score_jax.runs.directories import check_run, check_shapes, runs_in


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A quickstart of one row, a pipeline of one stage, and what else lies about."""
  folder = tmp_path_factory.mktemp('runs')
  run = json.dumps({'stage': {}, 'rollout': {}})
  for name in ('quick/stage1/seed0', 'pipe/stage2'):
    (folder / name / 'eval_greedy').mkdir(parents=True)
    (folder / name / 'config.json').write_text(run)
    with Checkpoints(folder / name / 'checkpoints') as checkpoints:
      checkpoints.save(2, {'trainable': {'w': np.zeros(3, np.float32)}}, {}, 1.0)
  for name, config in (('quick', {'run': {}}), ('quick/stage1', {'stage': {}}), ('model', {})):
    (folder / name).mkdir(exist_ok=True)
    (folder / name / 'config.json').write_text(json.dumps(config))
  (folder / 'new').mkdir()
  (folder / 'new' / 'config.json').write_text(run)
  (folder / 'lost' / 'checkpoints' / '2').mkdir(parents=True)
  return folder


@pytest.mark.parametrize('inside', ['', '/checkpoints', '/checkpoints/2'])
def test_a_run_and_its_checkpoints_are_taken(folder, inside):
  check_run(f'{folder}/pipe/stage2{inside}', '--run', needs_config=True)


@pytest.mark.parametrize(
  ('name', 'message', 'named'),
  [
    ('quick', 'is neither a run directory .*these runs lie in it', ['quick/stage1/seed0']),
    ('quick/stage1', 'is neither .*these runs lie in it', ['quick/stage1/seed0']),
    ('pipe', 'is neither .*these runs lie in it', ['pipe/stage2']),
    ('.', 'is neither .*these runs lie in it', ['pipe/stage2']),
    ('model', 'is neither a run directory nor a checkpoint of one$', []),
    ('pipe/stage2/eval_greedy', 'is neither .*it lies in the run', ['pipe/stage2']),
    ('pipe/stage2/config.json', 'is a file: name a run directory', []),
    ('new', 'is a run without a checkpoint', []),
    ('nowhere', 'does not exist', []),
    ('pipe/stage2/checkpoints/9', 'does not exist', []),
    ('lost', 'holds checkpoints, but no config.json of a run', []),
  ],
)
def test_of_what_is_no_run_the_runs_near_it_are_named(folder, name, message, named):
  with pytest.raises(ValueError, match=f'(?s)^--run={folder}.*{message}') as error:
    check_run(folder / name, '--run', needs_config=True)
  words = str(error.value).split()
  assert [f'{folder}/{run}' in words for run in named] == [True] * len(named)


def test_runs_are_found_two_folders_deep(folder):
  assert runs_in(folder) == [f'{folder}/pipe/stage2']
  assert runs_in(folder / 'quick') == [f'{folder}/quick/stage1/seed0']


def test_other_shapes_are_refused_without_reading_an_array(folder):
  run = folder / 'pipe' / 'stage2'
  check_shapes(run, {'w': np.zeros(3, np.float32)})
  with pytest.raises(ValueError, match=r'(?s)stage2 trained another model .*trainable/w'):
    check_shapes(run, {'w': np.zeros(4, np.float32)})
