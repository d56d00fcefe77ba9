"""Last digits of sums: work and checks, which problems there are, and how answers are graded."""

import itertools
import re

import numpy as np
import pytest

from score_jax.tasks import arithmetic, base


def terms_of(question):
  return [int(digit) for digit in re.findall(r'\d', question)]


def test_texts_by_hand():
  terms = [4, 7, 9, 2]  # 4, 11, 20, 22
  assert arithmetic.question_text(terms) == '4 +7 +9 +2 ?'
  assert arithmetic.worked_answer(terms) == '+7 1 +9 0 +2 = 2'
  assert arithmetic.worked_answer([9, 9]) == '+9 = 8'
  assert arithmetic.direct_answer(2) == '= 2'
  assert arithmetic.check(terms, 5) == '-2 3 -9 4 -7 7 -4 3 = 2'
  assert arithmetic.check(terms, 2) == '-2 0 -9 1 -7 4 -4 0 = 2'


@pytest.mark.parametrize('terms', [[9, 9], [4, 7, 9], [1, 1, 1, 1], [8, 3, 9, 5, 2, 6]])
def test_a_check_confirms_what_is_right_and_sets_right_what_is_not(terms):
  """By a plain loop; slips are carried on, so that they add up in what is left."""
  right, last = sum(terms) % 10, len(terms) - 1
  slips = [(3 * i) % 10 for i in range(len(terms))]
  for said, wrong_by in itertools.product(range(10), ([], slips)):
    left, text = said, ''
    for i, term in enumerate(terms[::-1]):
      left = (left + 10 - term + (wrong_by[i] if wrong_by else 0)) % 10
      text += f'-{term} {left} '
    words = arithmetic.check(terms, said, wrong_by).split()
    assert ' '.join(words[:-2]) == text.strip() and len(words) == 2 * len(terms) + 2
    assert words[-2:] == ['=', str((right - sum(wrong_by)) % 10)]
    if not wrong_by:
      assert int(words[2 * last + 1]) == (said - right) % 10  # what is left: how far it was off
  with pytest.raises(ValueError):
    arithmetic.check(terms, 0, [1])


def test_problems_are_right_distinct_and_held_out_by_their_terms():
  weights = {2: 1.0, 5: 3.0}
  task = arithmetic.load_arithmetic(60, 8, 0, weights)
  assert (len(task.train), len(task.test)) == (60, 8)
  for split, is_held_out in ((task.train, False), (task.test, True)):
    assert [p.id for p in split] == list(range(len(split)))
    for problem in split:
      terms = terms_of(problem.question)
      assert int(problem.answer) == sum(terms) % 10 and set(terms) <= set(range(1, 10))
      assert arithmetic.is_held_out(terms) == is_held_out
      assert int(problem.level) == len(terms) in weights
  questions = [p.question for p in itertools.chain(task.train, task.test)]
  assert len(set(questions)) == len(questions)
  # The same problems for the same seed only; what is held out is so whatever the seed.
  assert arithmetic.load_arithmetic(60, 8, 0, weights).train == task.train
  other = arithmetic.load_arithmetic(60, 8, 1, weights)
  assert other.train != task.train
  assert not {p.question for p in other.train} & {p.question for p in task.test}


def test_one_problem_in_eight_is_held_out_and_levels_have_their_weights():
  every = list(itertools.product(range(1, 10), repeat=4))
  share = np.mean([arithmetic.is_held_out(terms) for terms in every])
  assert round(share * len(every)) == 852  # docs/tasks.md has this number
  assert abs(share - 1 / 8) < 4 * (1 / 8 * 7 / 8 / len(every)) ** 0.5
  rng = np.random.default_rng(0)
  lengths = [len(arithmetic.draw_terms(rng, {2: 1.0, 3: 4.0}, False)) for _ in range(500)]
  assert abs(lengths.count(3) / 500 - 0.8) < 4 * (0.8 * 0.2 / 500) ** 0.5


def test_more_problems_than_there_are_are_refused():
  held_out = sum(map(arithmetic.is_held_out, itertools.product(range(1, 10), repeat=2)))
  arithmetic.load_arithmetic(1, held_out, 0, {2: 1.0})
  told = f'more sums of 2 terms than there are, about {held_out} held-out ones'
  with pytest.raises(ValueError, match=rf'num_test={held_out + 1} .* asks for {told}'):
    arithmetic.load_arithmetic(1, held_out + 1, 0, {2: 1.0})


def test_levels_of_few_problems_are_drawn_as_often_as_their_weights_say():
  """768 of the 852 held-out sums of four terms; drawn without regard to the level, 600."""
  task = arithmetic.load_arithmetic(256, 2048, 0, {4: 3.0, 5: 5.0})
  for problems in (task.train, task.test):
    share = np.mean([p.level == '4' for p in problems])
    assert abs(share - 3 / 8) < 4 * (3 / 8 * 5 / 8 / len(problems)) ** 0.5


@pytest.mark.parametrize(
  ('text', 'final', 'reason'),
  [
    ('= 1', '1', 'correct'),
    ('+7 =  1 ', '1', 'correct'),
    ('= 2 = 1', '1', 'correct'),
    ('= 1 = 2', '2', 'wrong'),
    ('= 11', '11', 'wrong'),
    ('=', '', 'wrong'),
    ('+7 1', None, 'no_answer'),
    ('', None, 'no_answer'),
  ],
)
def test_what_stands_after_the_last_mark_is_the_answer(text, final, reason):
  task = arithmetic.load_arithmetic(1, 1, 0, {2: 1.0})
  assert task.final(text) == final
  [verdict] = task.grade([base.Problem(0, '4 +7 ?', '1')], [text])
  assert verdict == base.Verdict(float(reason == 'correct'), reason)
