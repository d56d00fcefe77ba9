"""Right answers that say again what the question says."""

import functools

import pytest
from makers import ROOT

from score_jax.tasks.math_checker import equality, restated

SENTENCE = 'Final Answer: The final answer is ${}$. I hope it is correct.'


@functools.cache
def judged():
  """(verdict, question, reference, answer) of every line of restated_answers.txt."""
  verdict, found = '', []
  for line in (ROOT / 'tests/restated_answers.txt').read_text().splitlines():
    if line in ('restated:', 'correct:'):
      verdict = line[:-1]
    elif verdict and line.strip():
      found.append((verdict, *map(str.strip, line.split(' | '))))
  return found


def test_what_is_judged_is_right_by_value():
  """Without the rule, so that the verdicts below are the rule's."""
  grades = {
    equality.grade_final_answer(reference, SENTENCE.format(answer))[1]
    for _, _, reference, answer in judged()
  }
  assert grades == {'correct'} and len(judged()) > 100


@pytest.mark.parametrize('verdict', ['restated', 'correct'])
def test_an_answer_that_restates_the_question_gets_nothing(verdict):
  others = [
    row
    for row in judged()
    if row[0] == verdict
    and restated.grade_final_answer(row[2], SENTENCE.format(row[3]), row[1])
    != (float(verdict == 'correct'), verdict)
  ]
  assert others == []


def test_wrong_answers_keep_their_reasons():
  """They are not looked at: a formula of the question is wrong, too long, or no answer."""
  question = rf'Compute $\dbinom{{31}}{{28}} - {"1" * 600}$.'
  for text, reason in (
    (SENTENCE.format(r'\dbinom{31}{27}'), 'wrong'),
    (SENTENCE.format('1' * 600), 'too_long'),
    (r'\dbinom{31}{28}', 'no_answer'),
  ):
    assert restated.grade_final_answer('4495', text, question) == (0.0, reason)
  assert restated.grade_final_answer('', SENTENCE.format('5'), 'Is it 5?')[1] == 'no_reference'


@pytest.mark.parametrize(
  'broken', ['{' * 300, '}' * 300, '(' * 300, r'\frac' * 90, '$' * 300, '\\']
)
def test_questions_and_answers_that_are_no_latex_are_read_somehow(broken):
  assert restated.restates('5', '2+3', f'Compute $2+3$. {broken}')
  assert not restated.restates('5', f'2+3{broken}', 'Compute it.')
