"""What an evaluation's figures depend on: another measurement has another folder."""

import dataclasses
import json

import jax
import pytest

from score_jax.core.config import read_config
from score_jax.evaluation.evaluate import Evaluation
from score_jax.evaluation.measurement import check_folder, name_of
from score_jax.evaluation.protocol import plan_evaluation, save_evaluation
from score_jax.runs import files
from score_jax.setup import run as setup_run
from score_jax.setup.policy import Policy

# What an evaluation says other things by, and what it does not.
OTHERS = [
  ('eval.turn_tokens', (3, 4)),
  ('eval.turn_tokens', (4, 4, 4)),
  ('eval.protocol', 'self_refine'),
  ('eval.top_k', 5),
  ('eval.top_p', 0.5),
  ('eval.temperature', 0.7),
  ('eval.num_problems', 4),
  ('seed', 1),
  ('grader.timeout_s', 9.0),
  ('model.dtype', 'bfloat16'),
  ('task.seed', 5),
]
SAME = [
  ('eval.batch', 3),
  ('eval.feedback_tokens', 128),  # the default
  ('rollout.problems_per_step', 2),
  ('optimizer.learning_rate', 1.0),
  ('train.num_steps', 7),
  ('train.hang_s', 5.0),
  ('grader.num_workers', 1),
  ('mesh', (1, 1, 1)),
]


@pytest.fixture(scope='module')
def setup(tiny_run):
  setup = setup_run.prepare(read_config(str(tiny_run)))
  yield setup
  setup.task.close()


@pytest.fixture(scope='module')
def measured(setup):
  """(key, value) -> what an evaluation of the config with that change depends on."""

  def measure(key='', value=None, change=lambda params: params):
    config = setup.config.copy_and_resolve_references()
    if key:
      config.update_from_flattened_dict({key: value})
    policy = Policy.of_base(config, setup.base)
    policy = dataclasses.replace(policy, params=change(policy.params))
    return plan_evaluation(policy, setup.task).measurement

  return measure


def test_each_measurement_has_a_name_of_its_own(measured):
  names = [name_of(measured()), *(name_of(measured(*change)) for change in OTHERS)]
  assert len(set(names)) == len(names)
  assert {name_of(measured(*change)) for change in SAME} == {names[0]}
  assert len(names[0]) == 8


def test_other_parameters_and_problems_are_another_measurement(setup, measured):
  moved = measured(change=lambda params: jax.tree.map(lambda x: x + 1e-6, params))
  assert moved['parameters'] != measured()['parameters']
  task = setup.task
  other = dataclasses.replace(task.test[0], answer='none')
  policy = Policy.of_base(setup.config, setup.base)
  changed = dataclasses.replace(task, test=[other, *task.test[1:]])
  found = plan_evaluation(policy, changed).measurement
  assert {k for k, v in found.items() if v != measured()[k]} == {'problems'}


def evaluation(measurement, count=2):
  records = [{'id': i} for i in range(count)]
  return Evaluation(records, {'acc_t1': {'mean': 0.5}}, 3), measurement, {'commit': 'abc'}


def test_a_folder_keeps_the_measurement_that_it_holds(measured, tmp_path):
  standard, other = measured(), measured('eval.turn_tokens', (3, 4))
  check_folder(tmp_path, other)
  save_evaluation(tmp_path, *evaluation(standard))
  check_folder(tmp_path, standard)
  with pytest.raises(ValueError, match='holds another evaluation') as told:
    check_folder(tmp_path, other)
  assert 'config.eval.turn_tokens: [] there, [3, 4] now' in str(told.value)
  metrics = json.loads((tmp_path / 'metrics.json').read_text())
  assert metrics['measurement'] == standard
  assert (metrics['num_problems'], metrics['num_left_out'], metrics['commit']) == (2, 3, 'abc')
  (tmp_path / 'metrics.json').write_text('{"acc_t1": 1}')
  with pytest.raises(ValueError, match='does not say what it depends on'):
    check_folder(tmp_path, standard)


def test_records_and_metrics_appear_together_or_not_at_all(measured, tmp_path, monkeypatch):
  new, old = tmp_path / 'new', tmp_path / 'old'
  save_evaluation(old, *evaluation(measured()))
  before = {path.name: path.read_text() for path in old.iterdir()}
  write = type(files.epath.Path(old)).write_bytes

  def full(path, data):
    if 'metrics' in path.name:
      raise OSError(28, 'No space left on device')
    return write(path, data)

  monkeypatch.setattr(type(files.epath.Path(old)), 'write_bytes', full)
  for folder in (new, old):
    with pytest.raises(OSError, match='the disk is full'):
      save_evaluation(folder, *evaluation(measured(), count=5))
  assert not [path for path in new.iterdir() if not path.name.startswith('.')]
  now = {path.name: path.read_text() for path in old.iterdir() if not path.name.startswith('.')}
  assert now == before and before.keys() == {'records.jsonl', 'metrics.json'}
