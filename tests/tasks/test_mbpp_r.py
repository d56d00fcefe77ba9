"""MBPP-R: a set of wrong programs, and one of them as an answer."""

import json

from score_jax.core.config import default_config
from score_jax.setup.task import make_checker
from score_jax.tasks import base, mbpp_r


def test_a_program_to_repair_ends_as_the_shots_do():
  wrong = base.Problem(0, 'Add.', '', attempt='def add(a, b):\n  return a\n\n')
  assert mbpp_r.forced_answer(wrong) == 'def add(a, b):\n  return a\n[DONE]'


def test_a_set_is_read_back(data_dir, tmp_path):
  config = default_config()
  rows = [
    {
      'task_id': 11 + i,
      'question': f'Q{i}. Your code should pass these tests:\n\nassert f() == {i}',
      'tests': f'assert f() == {i}',
      'program': 'def f():\r\n  return "é"\n',
      'reason': 'wrong',
    }
    for i in range(2)
  ]
  (tmp_path / 'programs.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  checker = make_checker(config)
  task = mbpp_r.load_mbpp_r(tmp_path, data_dir, checker, cache=tmp_path / 'cache')
  assert [(p.id, p.question, p.answer, p.attempt) for p in task.test] == [
    (i, row['question'], row['tests'], row['program']) for i, row in enumerate(rows)
  ]
  assert task.prompt(task.test[1]).endswith(f'{rows[1]["question"]}\n\n[BEGIN]\n')
  answers = [mbpp_r.forced_answer(problem) for problem in task.test]
  try:
    assert [v.reward for v in task.grade(task.test, answers)] == [0.0, 0.0]
  finally:
    task.close()
