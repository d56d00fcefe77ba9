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


def test_an_answer_that_restates_the_question_gets_nothing():
  """All are right without the rule, so that the verdicts are the rule's."""
  assert len(judged()) > 150
  others = []
  for verdict, question, reference, answer in judged():
    text = SENTENCE.format(answer)
    assert equality.grade_final_answer(reference, text) == (1.0, 'correct'), (reference, answer)
    if restated.restates(reference, answer, question) != (verdict == 'restated'):
      others.append((verdict, question, reference, answer))
  assert others == []
  question = r'Compute $\dbinom{31}{28}$.'
  for answer, verdict in ((r'\tbinom{31}{28}', (0.0, 'restated')), ('4495', (1.0, 'correct'))):
    assert restated.grade_final_answer('4495', SENTENCE.format(answer), question) == verdict


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
