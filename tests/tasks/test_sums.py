"""Sums as text: which problems there are, and how their answers are graded."""

import itertools

import pytest

from score_jax.tasks import base, sums


def _addends(problem):
  words = problem.question.removeprefix('What is ').removesuffix('?').split(' + ')
  return tuple(int(word) for word in words)


def test_sums_are_right_distinct_and_split_by_unordered_pair():
  task = sums.load_arithmetic_text(low=2, high=20, num_train=250, num_test=100, seed=3)
  train, test = [list(map(_addends, split)) for split in (task.train, task.test)]
  assert (len(set(train)), len(set(test))) == (250, 100)
  assert [p.id for p in task.train] == list(range(250))
  assert not {frozenset(pair) for pair in train} & {frozenset(pair) for pair in test}
  assert {addend for pair in train for addend in pair} == set(range(2, 21))
  for problem in itertools.chain(task.train, task.test):
    assert sum(_addends(problem)) == int(problem.answer)


def test_sums_are_the_same_for_the_same_seed_only():
  first, again, other = (
    sums.load_arithmetic_text(seed=seed, num_train=20, num_test=5) for seed in (0, 0, 1)
  )
  assert first.train == again.train and first.test == again.test
  assert first.train != other.train


def test_every_sum_of_a_small_range_can_be_asked_for():
  # 3 x 3 ordered pairs; how many are left for training depends on the pairs drawn for the test.
  for seed in range(5):
    task = sums.load_arithmetic_text(low=0, high=2, num_train=7, num_test=1, seed=seed)
    asked = [_addends(p) for p in (*task.train, *task.test)]
    assert len(set(asked)) == 8 and set(asked) <= set(itertools.product(range(3), repeat=2))


@pytest.mark.parametrize(
  'kwargs, message',
  [
    ({'num_train': 1000}, r'num_train=1000, but only \d+ problems are left: low=2..high=20'),
    ({'num_test': 400}, r'num_test=400, but only 361 problems are left'),
    ({'low': 5, 'high': 4}, r'low=5 must not be above high=4'),
    ({'style': 'poem'}, r"style='poem' is unknown"),
  ],
)
def test_impossible_sums(kwargs, message):
  with pytest.raises(ValueError, match=message):
    sums.load_arithmetic_text(**kwargs)


def test_the_styles():
  plain, paper = (
    sums.load_arithmetic_text(style=style, num_train=2, num_test=1) for style in ('plain', 'math')
  )
  problem = base.Problem(0, 'What is 3 + 4?', '7')
  assert plain.prompt(problem) == 'What is 3 + 4?'
  assert plain.instruction.endswith('Only output the final solution!')
  assert paper.prompt(problem).startswith('You are a math expert.')
  assert paper.instruction.endswith('I hope it is correct."')


@pytest.mark.parametrize(
  'reference, text, reason',
  [
    ('7', '7', 'correct'),
    ('7', '3 + 4 = 7.', 'correct'),
    ('7', 'The sum of 3 and 4 is **7**!', 'correct'),
    ('7', r'$\boxed{7}$, and not 8', 'correct'),
    ('7', 'The final answer is $x = 7$. I hope it is correct. 8', 'correct'),
    ('1019', '1,000 + 19 = 1,019', 'correct'),
    ('7', '7.0', 'correct'),
    ('-7', '3 + \u221210 = \u22127', 'correct'),
    ('0', '5-5=0', 'correct'),
    ('7', '07', 'correct'),
    ('7', '7.5', 'wrong'),
    ('7', '7 or 8', 'wrong'),
    ('7', '17', 'wrong'),
    ('7', '-7', 'wrong'),
    ('7', '77', 'wrong'),
    ('7', '3 + 4', 'wrong'),
    ('7', r'7, so \boxed{8}', 'wrong'),
    ('7', r'7, so \boxed{?}', 'wrong'),
    ('5', '3.5', 'wrong'),
    ('7', '7' * 10_000, 'wrong'),
    ('7', 'seven', 'no_answer'),
    ('7', '\ud800\0', 'no_answer'),
    ('7', ' 7' * 20_000, 'too_long'),
  ],
)
def test_grading_of_sums(reference, text, reason):
  (verdict,) = sums.grade_integers([base.Problem(0, '?', reference)], [text])
  assert verdict == base.Verdict(float(reason == 'correct'), reason)


def test_one_text_per_problem():
  with pytest.raises(ValueError, match='1 problems but 2 texts'):
    sums.grade_integers([base.Problem(0, '?', '7')], ['7', '7'])
