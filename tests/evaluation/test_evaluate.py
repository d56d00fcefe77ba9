"""Records and counts of an evaluation, of a model that can only count."""

from small_models import Digits, counting_sampler, digit_task

from score_jax.evaluation.evaluate import evaluate
from score_jax.rollout.text import encode_prompts


def test_records_are_in_the_order_of_the_problems():
  """Prompts of unequal length, one too long; 9 ends a turn, and turn 2 follows on a 6."""
  task = digit_task(['22', '5', '1234', '1'])
  told = []
  prompts = encode_prompts(task.test, task, Digits(), 3)
  found = evaluate(counting_sampler(), prompts, task, at=lambda *x: told.append(x))
  assert found.num_left_out == 1
  assert [(r['id'], r['answers']) for r in found.records] == [
    (0, ['3456', '78']),  # the budget of turn 1 ends at 6
    (1, ['678', '78']),
    (3, ['2345', '78']),
  ]
  assert found.records[1] == {
    'id': 1,
    'level': '',
    'question': '5',
    'answer': '78',
    'answers': ['678', '78'],
    'finals': ['678', '78'],
    'rewards': [0.0, 1.0],
    'reasons': ['wrong', 'correct'],
    'tokens': [4, 3],
    'truncated': [False, False],
  }
  assert [r['truncated'] for r in found.records] == [[True, False], [False, False], [True, False]]
  assert (found.metrics['acc_t1']['mean'], found.metrics['acc_t2']['mean']) == (0.0, 1.0)
  deeds = ['problems sampled', 'turn 1 graded', 'turn 2 graded']
  assert told[-6:] == [(done, deed) for done in (2, 3) for deed in deeds]
  assert set(told[:-6]) == {(0, 'sampling')}


def test_turns_that_hold_no_answer_stand_between():
  task = digit_task(['5', '7'])
  prompts = encode_prompts(task.test, task, Digits(), 3)
  found = evaluate(counting_sampler(), prompts, task, turns=(1,))
  assert [(r['answers'], r['between']) for r in found.records] == [
    (['78'], ['678']),
    (['78'], ['8']),
  ]
