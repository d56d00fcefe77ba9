"""Habits of the small policy's pretraining data."""

import collections
import dataclasses

import numpy as np
import pytest

from score_jax.tasks.arithmetic import is_held_out
from score_jax.tasks.mixture import HABITS, Mixture, draw_example

# Sums of two terms are known by heart, of three guessed.
MIXTURE = Mixture(
  {2: 1.0, 3: 1.0},
  known_terms=2,
  wrong_t1=0.3,
  worked_t1=0.4,
  checked_t1=0.25,
  checked_t2=0.35,
  slip=0.15,
  worked_t2=0.2,
  worked_again_t2=0.3,
  changed_t2=0.25,
)
COUNT = 3000


def slips_of(words, terms, said):
  """Which steps of a check go wrong; nothing else in it may."""
  left, found = said, []
  for term in terms[::-1]:
    sign_and_term, digit, *words = words
    assert sign_and_term == f'-{term}'
    found.append(int(digit) != (left - term) % 10)
    left = int(digit)
  assert words == ['=', str((said - left) % 10)]
  return found


def read_first(example, terms, seen):
  """Notes the habits of a first answer; returns whether it is worked, and the digit it ends in."""
  words = f'{example.wrong} {example.first}'.split()
  is_worked = words[0].startswith('+')
  steps = 2 * (len(terms) - 1) - 1 if is_worked else 0
  said, check = int(words[steps + 1]), words[steps + 2 :]
  is_guess = len(terms) == 3 and not is_worked and not example.wrong
  seen['worked_t1'].append(is_worked)
  seen['wrong_t1'].append(bool(example.wrong))
  if example.wrong:  # up to the wrong digit it is context
    assert example.wrong.split() == words[: steps + 2] and said != sum(terms) % 10
  elif not is_guess:
    assert said == sum(terms) % 10
  if is_guess:
    seen['guess'].append(said)
  if is_worked:
    assert not check
  else:
    seen['checked_t1'].append(bool(check))
  if check:
    seen['slip'] += slips_of(check, terms, said)
    said = int(check[-1])
  return is_worked, said


def read_second(example, terms, said, is_worked, seen):
  """Notes the habits of a second answer."""
  words = example.second.split()
  kind = {'+': 'worked', '-': 'check', '=': 'direct'}[words[0][0]]
  seen['worked_again_t2' if is_worked else 'worked_t2'].append(kind == 'worked')
  seen['checked_t2'].append(kind == 'check')
  seen['changed_t2'].append(kind == 'direct' and words != ['=', str(said)])
  if kind == 'worked':
    assert int(words[-1]) == sum(terms) % 10
  if kind == 'check':
    seen['slip'] += slips_of(words, terms, said)


def test_habits_are_as_frequent_as_asked_for():
  rng, seen = np.random.default_rng(0), collections.defaultdict(list)
  for _ in range(COUNT):
    example = draw_example(rng, MIXTURE)
    terms = [int(word.lstrip('+')) for word in example.question.split()[:-1]]
    assert not is_held_out(terms)
    is_worked, said = read_first(example, terms, seen)
    read_second(example, terms, said, is_worked, seen)
  guesses = seen.pop('guess')
  assert seen.keys() == HABITS.keys()
  wanted = dataclasses.asdict(MIXTURE)
  for digit in range(10):
    seen[digit], wanted[digit] = [guess == digit for guess in guesses], 0.1
  for name, found in seen.items():
    share = wanted[name]
    assert abs(np.mean(found) - share) < 4 * (share * (1 - share) / len(found)) ** 0.5, name


def test_a_habit_that_is_not_asked_for_does_not_occur():
  """What is left is an answer by heart, and the same once more."""
  rng, mixture = np.random.default_rng(0), Mixture({3: 1.0}, known_terms=3)
  for _ in range(20):
    example = draw_example(rng, mixture)
    total = sum(int(word.lstrip('+')) for word in example.question.split()[:-1])
    answer = f'= {total % 10}'
    assert (example.wrong, example.first, example.second) == ('', answer, answer)


@pytest.mark.parametrize('name', ['worked_t2', 'worked_again_t2'])
def test_work_at_turn_2_is_not_taught(name):
  with pytest.raises(ValueError, match='must not be above worked_t1=0.4'):
    dataclasses.replace(MIXTURE, **{name: 0.5})


@pytest.mark.parametrize(
  ('habits', 'message'),
  [
    (dict(slip=8.0), r'config.phases: slip=8.0 must be from 0 to 1'),
    (dict(wrong_t1=-0.1), r'config.phases: wrong_t1=-0.1 must be from 0 to 1'),
    (dict(checked_t2=0.6), r'0.3 are worked, 0.6 check and 0.25 are changed .* 1.15 in all'),
  ],
)
def test_shares_that_cannot_be_are_refused(habits, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(MIXTURE, **habits)


def test_shares_that_make_one_in_all_are_taken():
  assert 0.33 + 0.56 + 0.11 > 1  # as floating-point numbers
  Mixture({2: 1.0}, 2, worked_t1=1.0, worked_t2=0.33, checked_t2=0.56, changed_t2=0.11)
