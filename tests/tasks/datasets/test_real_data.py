"""The published data: its checksums, and how far evaluation problems stand in training splits."""

import hashlib

import pytest

from score_jax.core.config import default_config
from score_jax.setup.task import make_task
from score_jax.tasks import base
from score_jax.tasks.datasets import catalogue


def test_the_checksums_are_those_of_the_files_that_are_used(data_dir):
  """All but MATH's training split, of which other copies with the same problems are about."""
  datasets = (catalogue.MATH, catalogue.GSM8K, catalogue.MBPP, catalogue.HUMANEVAL)
  for file in (file for dataset in datasets for file in dataset.files):
    if file.path != 'math/train.jsonl':
      assert hashlib.sha256((data_dir / file.path).read_bytes()).hexdigest() == file.sha256


@pytest.fixture(scope='module')
def statements(data_dir, data_cache):
  """Normalised statements by (task, split), of training as it is by default."""
  config = default_config()
  config.data.path = str(data_dir)
  config.data.cache = data_cache
  found = {}
  for name in ('math', 'gsm8k', 'mbpp', 'humaneval'):
    config.task.name = name
    task = make_task(config)
    for split in ('train', 'test'):
      problems = getattr(task, split)
      found[name, split] = {
        base.normalise_question(task.statement(problem)): problem.id for problem in problems
      }
    task.close()
  return found


def test_no_evaluation_problem_is_in_any_training_split(statements):
  for train in statements:
    for test in statements:
      if train[1] == 'train' and test[1] == 'test':
        assert not statements[train].keys() & statements[test].keys(), (train, test)
  assert len(statements['math', 'test']) == 500 and len(statements['gsm8k', 'test']) == 1319
  assert len(statements['humaneval', 'test']) == 164


def test_the_overlap_of_the_real_data_is_what_the_docs_say(data_dir, data_cache, caplog):
  config = default_config()
  config.task.name = 'mbpp'
  config.data.path, config.data.cache = str(data_dir), data_cache
  config.data.drop_overlap = False
  whole = make_task(config)
  pairs = [(test.id + 11, train.id + 601) for test, train in base.check_disjoint(whole)]
  assert pairs == [(216, 872), (217, 602), (248, 704)]
  # Problems 76 and 347 have one sentence, and tests of their own.
  assert '1 of 500 evaluation problems have the text of an earlier one' in caplog.text
  assert 'ids [336]; 1 of them have another answer: ids [336]' in caplog.text
  assert (len(whole.train), len(whole.test)) == (374, 500)
  caplog.clear()
  config.data.drop_overlap = True
  less = make_task(config)
  assert 'mbpp: 3 of 374 training problems are left out' in caplog.text
  assert 'ids [1, 103, 271]' in caplog.text
  assert less.test == whole.test
  assert less.train == [p for p in whole.train if p.id not in (1, 103, 271)]
