"""From a config to its task: one's own, overlap left out, and the configs' settings."""

import json
import re
import runpy
import sys

import numpy as np
import pytest
from makers import ROOT
from ml_collections import ConfigDict

from score_jax.core.config import NOT_IDENTITY, default_config, leaves
from score_jax.core.config_check import check_config
from score_jax.setup import task as task_loader
from score_jax.tasks import base

# A task of one's own: the example of the docs, as it stands.

CAPITALS = {'France': 'Paris', 'Spain': 'Madrid', 'Peru': 'Lima'}
EXAMPLE = re.search(r'```python\n(.*?)```', (ROOT / 'docs/tasks.md').read_text(), re.DOTALL)[1]


def _capitals(tmp_path, train, test):
  (tmp_path / 'capitals').mkdir()
  (tmp_path / 'capitals.py').write_text(EXAMPLE)
  for name, countries in (('train', train), ('test', test)):
    rows = [
      {'question': f'What is the capital of {country}?', 'answer': CAPITALS[country]}
      for country in countries
    ]
    lines = ''.join(json.dumps(row) + '\n' for row in rows)
    (tmp_path / 'capitals' / f'{name}.jsonl').write_text(lines)
  config = default_config()
  config.task.name = 'capitals:load'
  config.data.path = str(tmp_path)
  return config


@pytest.fixture(autouse=True)
def _importable(tmp_path, monkeypatch):
  """A user's own module lies on PYTHONPATH."""
  monkeypatch.syspath_prepend(tmp_path)
  yield
  sys.modules.pop('capitals', None)


def test_the_example_of_the_docs_is_a_task(tmp_path):
  task = task_loader.make_task(_capitals(tmp_path, train=['France', 'Spain'], test=['Peru']))
  assert [p.answer for p in (*task.train, *task.test)] == ['Paris', 'Madrid', 'Lima']
  texts = ['It is paris.', 'Paris!']
  assert [v.reason for v in task.grade(task.train, texts)] == ['correct', 'wrong']
  assert task.grade(task.test, ['']) == [base.Verdict(0.0, 'no_answer')]
  assert task.prompt(task.test[0]) == 'What is the capital of Peru? Answer with one word.'
  task.close()


@pytest.mark.slow
def test_the_example_of_the_docs_trains(tmp_path, run_python):
  """From the command line, with the small model: whatever it answers is graded."""
  _capitals(tmp_path, train=['France', 'Spain'], test=['Peru'])
  done = run_python(
    '-m',
    'score_jax.main',
    '--config=configs/stage1_sums.py',
    '--config.task.name=capitals:load',
    f'--config.data.path={tmp_path}',
    '--config.model.checkpoint=embedded',
    '--config.model.preset=',
    '--config.rollout.problems_per_step=2',
    '--config.rollout.turn_tokens=(4,4)',
    '--config.train.num_steps=1',
    '--config.train.progress=False',
    f'--workdir={tmp_path / "run"}',
    PYTHONPATH=str(tmp_path),
  )
  assert done.returncode == 0, done.stderr
  records = [
    json.loads(line)
    for path in (tmp_path / 'run' / 'metrics').glob('*.jsonl')
    for line in path.read_text().splitlines()
  ]
  (record,) = [record for record in records if 'train/reward_t1' in record]
  shares = [value for key, value in record.items() if key.startswith('train/graded_')]
  assert sum(shares) == pytest.approx(1)
  assert 'time/grade_not_hidden_s' in record


def test_the_config_says_whether_overlap_is_left_out(tmp_path):
  config = _capitals(tmp_path, train=['France', 'Spain'], test=['Spain'])
  assert [p.id for p in task_loader.make_task(config).train] == [0]
  config.data.drop_overlap = False
  assert [p.id for p in task_loader.make_task(config).train] == [0, 1]


def test_the_config_says_whether_a_copy_of_the_question_is_refused(tmp_path):
  """A run does not go on with other verdicts than it began with: the key is of its identity."""
  (tmp_path / 'math').mkdir()
  row = {'problem': r'Compute $\dbinom{31}{28}$.', 'answer': '4495'}
  for name in ('train', 'test'):
    (tmp_path / f'math/{name}.jsonl').write_text(json.dumps(row))
  config = default_config()
  config.task.name, config.data.drop_overlap = 'math', False
  config.data.path, config.data.cache = str(tmp_path), str(tmp_path / 'cache')
  config.grader.num_workers = 1
  assert config.grader.refuse_restated and 'grader.refuse_restated' not in NOT_IDENTITY
  config.grader.refuse_restated = False
  task = task_loader.make_task(config)
  try:
    assert task.grade(task.test, [r'\boxed{\binom{31}{28}}'])[0].reason == 'correct'
  finally:
    task.close()


def test_generated_problems_are_the_configs():
  config = default_config()
  config.task.update(num_train=400, num_test=50, seed=3, low=30, high=40)
  config.task.level_weights = ConfigDict({'3': 1.0, '5': 3.0})

  def questions(name, **seeds):
    other = config.copy_and_resolve_references()
    other.task.name, other.seed = name, seeds.get('run', 9)
    other.task.seed = seeds.get('task', 3)
    task = task_loader.make_task(other)
    assert (len(task.train), len(task.test)) == (config.task.num_train, config.task.num_test)
    return [p.question for p in (*task.train, *task.test)]

  found = questions('arithmetic')
  levels = [text.count('+') + 1 for text in found]
  assert set(levels) == {3, 5} and abs(np.mean(np.array(levels) == 5) - 0.75) < 0.1
  assert questions('arithmetic', run=10) == found != questions('arithmetic', task=4)
  config.task.update(num_train=40, num_test=20)  # there are 121 sums
  numbers = [int(n) for text in questions('sums') for n in re.findall(r'[0-9]+', text)]
  assert (min(numbers), max(numbers)) == (30, 40)


def test_graders_get_the_limits_of_the_config(monkeypatch):
  config, taken = default_config(), []
  limits = dict(num_workers=3, timeout_s=7.5, memory_bytes=1 << 28, allow_unsandboxed=True)
  config.grader.update(limits)
  config.data.update(path='there', cache='here')

  class Checker:
    def __init__(self, *limits, allow_unsandboxed, cache):
      taken.append((*limits, allow_unsandboxed))
      assert cache == 'here'

    def grade(self, items):
      assert not items

  monkeypatch.setattr(task_loader, 'CodeChecker', Checker)
  task_loader.make_checker(config)
  assert taken == [tuple(limits.values())]

  def load(*args, **how):
    return args, how

  want = {'cache': 'here', 'num_workers': 3, 'timeout_s': 7.5, 'refuse_restated': True}
  assert task_loader._answers(load)(config) == (('there',), want)
  (path, checker), how = task_loader._programs(load)(config)
  assert (path, type(checker), how) == ('there', Checker, {'cache': 'here'})


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('poems', r"config\.task\.name='poems' is none of arithmetic, sums, math, .*humaneval"),
    ('nowhere:load', r"config\.task\.name='nowhere:load': No module named 'nowhere'"),
    ('json:load_task', r"'json:load_task': module 'json' has no attribute 'load_task'"),
    ('builtins:repr', r"'builtins:repr' returned a str, not a score_jax\.tasks\.base\.Task"),
  ],
)
def test_a_name_that_is_no_task_is_an_error(name, message):
  config = default_config()
  config.task.name = name
  with pytest.raises(ValueError, match=message):
    task_loader.make_task(config)


# Configs.


def _config(name, *args):
  return runpy.run_path(str(ROOT / 'configs' / name))['get_config'](*args)


def test_the_code_configs_hold_table_5():
  one, two, evaluation = map(_config, ('stage1_code.py', 'stage2_code.py', 'humaneval.py'))
  for c in (one, two, evaluation):
    check_config(c)
    assert c.optimizer.learning_rate == 1e-5 and c.rollout.temperature == 1.0
    assert c.rollout.problems_per_step * c.rollout.samples_per_problem == 128
  assert one.train.num_steps + two.train.num_steps == 1500
  assert (one.task.name, two.task.name, evaluation.task.name) == ('mbpp', 'mbpp', 'humaneval')
  assert tuple(one.stage.reward_weight) == (0, 1) and tuple(one.stage.kl_weight) == (0.25, 0.01)
  assert tuple(two.stage.reward_weight) == (1, 1) and tuple(two.stage.kl_weight) == (0.01, 0.01)
  assert tuple(two.stage.bonus) == (0, 10) and two.stage.reference == 'base'
  assert two.init.required and not evaluation.init.required


@pytest.mark.parametrize('preset', ['', ',smollm2_135m'])
def test_the_gsm8k_configs_are_those_of_math(preset):
  for stage in ('stage1', 'stage2'):
    c, math = (
      _config('gsm8k.py', stage + preset),
      _config(f'{stage}_math.py', *filter(None, [preset[1:]])),
    )
    check_config(c)
    differing = {k for (k, a), (_, b) in zip(leaves(c), leaves(math), strict=True) if a != b}
    assert differing == {'config.task.name'} and c.task.name == 'gsm8k'
  for bad in ('stage3', 'smollm2_135m', 'stage1,tiny'):
    with pytest.raises(ValueError, match=bad.split(',')[-1]):
      _config('gsm8k.py', bad)


@pytest.mark.parametrize('name', ['stage1_code.py', 'stage2_code.py', 'humaneval.py'])
def test_the_laptop_presets_of_the_code_configs(name):
  c = _config(name, 'smollm2_135m')
  check_config(c)
  assert c.rollout.problems_per_step * c.rollout.samples_per_problem == 4
  with pytest.raises(ValueError, match="preset 'tiny'"):
    _config(name, 'tiny')
