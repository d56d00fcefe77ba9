"""MATH: prompts to the letter, answers graded, hostile answers survived."""

import itertools
import json

import pytest

from score_jax.tasks import base, math


def _sentence(answer: str) -> str:
  return f'Work. Final Answer: The final answer is ${answer}$. I hope it is correct.'


def test_the_prompts_are_the_papers():
  problem = base.Problem(0, 'What is $2+2$?', '4')
  assert math.math_prompt(problem) == (
    'You are a math expert. When you respond, respond only with the Solution of the final '
    'Problem, thinking step by step. At the end of the Solution, when you give your final '
    'answer, write it in the form "Final Answer: The final answer is $answer$. I hope it is '
    'correct."'
    '\n\nProblem: What is $2+2$?'
  )
  assert math.MATH_INSTRUCTION == (
    'There might be an error in the solution above because of lack of understanding of the '
    'question. Please correct the error, if any, and rewrite the solution. Only output the final '
    'solution! At the end of the Solution, when you give your final answer, write it in the form '
    '"Final Answer: The final answer is $answer$. I hope it is correct."'
  )


@pytest.fixture(scope='module')
def hand_made(tmp_path_factory):
  root = tmp_path_factory.mktemp('data')
  rows = [
    {'problem': f'p{i}', 'answer': a, 'level': level}
    for i, (a, level) in enumerate([('5', 3), (r'\frac{1}{2}', None), ('', 1)])
  ]
  (root / 'math').mkdir()
  for name in ('train', 'test'):
    (root / 'math' / f'{name}.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  task = math.load_math(root, cache=root / 'cache', num_workers=2, timeout_s=2.0)
  yield task
  task.close()


def test_rows_become_problems(hand_made):
  assert hand_made.train[1] == base.Problem(1, 'p1', r'\frac{1}{2}', '')
  assert [p.level for p in hand_made.train] == ['3', '', '1']


def test_grading_goes_through_the_workers(hand_made):
  five, half, none = hand_made.train
  verdicts = hand_made.grade(
    [five, half, five, five, none], [_sentence('5'), _sentence('0.5'), _sentence('6'), '5', '5']
  )
  assert [v.reason for v in verdicts] == [
    'correct',
    'correct',
    'wrong',
    'no_answer',
    'no_reference',
  ]
  assert [v.reward for v in verdicts] == [1.0, 1.0, 0.0, 0.0, 0.0]
  with pytest.raises(ValueError, match='1 problems but 0 texts'):
    hand_made.grade([five], [])


def test_a_copy_of_the_question_is_refused():
  problems = [
    base.Problem(0, r'Compute $\dbinom{31}{28}$.', '4495'),
    base.Problem(1, r'Compute $\dbinom{31}{3}$.', '4495'),
    base.Problem(2, 'Factor ab+5b+2a+10.' + ' ' * 30_000, '(a+5)(b+2)'),
  ]
  task = math.math_task('math', problems, [], num_workers=1)
  # The same reference and answer to two questions: a verdict is remembered for its own question.
  texts = [_sentence(r'\binom{31}{28}')] * 2 + [_sentence('ab + 5b + 2a + 10')]
  try:
    verdicts = [task.grade([p], [text])[0] for p, text in zip(problems, texts, strict=True)]
    assert [v.reason for v in task.grade(problems, texts)] == [v.reason for v in verdicts]
  finally:
    task.close()
  assert [v.reason for v in verdicts] == ['restated', 'correct', 'restated']
  assert [v.reward for v in verdicts] == [0.0, 1.0, 0.0]


def test_hostile_answers_cost_only_themselves(hand_made):
  five = hand_made.train[0]
  hostile = {
    'tower of powers': _sentence('9^{9^{9^9}}'),
    'factorials': _sentence('((9!)!)!'),
    'nested braces': _sentence('{' * 9_000 + '}' * 9_000),
    'short nested braces': _sentence('{' * 200 + '5' + '}' * 200),
    'open braces': '\\boxed{' + '{' * 10_000,
    'a megabyte': 'a' * 1_000_000,
    'surrogates': _sentence('\udcff\ud800 5'),
    'bytes that are no text': b'Final answer is \xff\xfe\x00'.decode('utf-8', 'surrogateescape'),
    'null': _sentence('\0'),
    'code': _sentence('__import__("os").abort()'),
  }
  texts = [text for bad in hostile.values() for text in (bad, _sentence('5'))]
  verdicts = hand_made.grade([five] * len(texts), texts)
  assert [v.reason for v in verdicts[1::2]] == ['correct'] * len(hostile)
  reasons = dict(zip(hostile, [v.reason for v in verdicts[::2]], strict=True))
  assert all(v.reward == 0.0 for v in verdicts[::2] if v.reason != 'correct')
  assert reasons['tower of powers'] in ('wrong', 'timeout')
  assert reasons['nested braces'] == 'too_long'
  assert reasons['a megabyte'] == 'too_long'
  assert reasons['open braces'] == 'no_answer'
  # 200 braces around a 5 are a 5; whether the parser gets that far is not ours to say.
  assert {name for name, reason in reasons.items() if reason == 'correct'} <= {
    'short nested braces'
  }


def test_missing_data_names_the_flag(tmp_path):
  with pytest.raises(ValueError, match=r'train\.jsonl: no such file; set --config\.data\.path'):
    math.load_math(tmp_path, cache=tmp_path / 'cache')


def test_the_real_data_has_its_published_sizes_and_no_overlap(data_dir, data_cache):
  task = math.load_math(data_dir, cache=data_cache)
  assert (len(task.train), len(task.test)) == (12_000, 500)
  assert base.check_disjoint(task) == []
  assert all(problem.id == i for i, problem in enumerate(task.train))
  assert sum(not problem.answer for problem in task.train) == 2


def test_reference_answers_are_right_and_those_of_other_problems_are_not(data_dir, data_cache):
  task = math.load_math(data_dir, cache=data_cache, timeout_s=30.0)
  sample = task.test[::8]
  # Another form of the same answer, so that the comparison of strings does not settle it.
  own = [_sentence(p.answer.replace('\\frac', '\\dfrac') + r'\,') for p in sample]
  try:
    assert [v.reason for v in task.grade(sample, own)] == ['correct'] * len(sample)
    other = [(p, q) for p, q in itertools.pairwise(sample) if p.answer != q.answer]
    verdicts = task.grade([p for p, _ in other], [_sentence(q.answer) for _, q in other])
    assert [v.reason for v in verdicts] == ['wrong'] * len(other)
  finally:
    task.close()
