"""Between text and slots: prompts that do not fit are counted and left out, never cut."""

import numpy as np
import pytest

from score_jax.rollout.text import encode_prompts, fill_slots, turn_texts
from score_jax.tasks.base import Problem, Task


class Letters:
  """A tokenizer of one id a letter, for exact expectations."""

  def prompt_ids(self, text):
    return [ord(c) for c in text]

  def decode(self, ids):
    return ''.join(chr(i) for i in ids)


def task_of(*questions):
  problems = [Problem(i, q, '') for i, q in enumerate(questions)]
  return Task('t', problems, [], lambda p: p.question, 'again', lambda p, t: [], str, lambda: None)


def test_long_prompts_are_counted_and_left_out():
  task = task_of('ab', 'abcdef', 'c')
  prompts = encode_prompts(task.train, task, Letters(), 3)
  assert [p.id for p in prompts.problems] == [0, 2]
  assert (prompts.num_too_long, prompts.longest) == (1, 6)


def test_no_problem_and_no_fit_are_errors():
  task = task_of('abc', 'abcd')
  with pytest.raises(ValueError, match='no problems'):
    encode_prompts([], task, Letters(), 3)
  with pytest.raises(ValueError, match='prompt_tokens=2 .* 4 tokens, the shortest 3'):
    encode_prompts(task.train, task, Letters(), 2)


def test_slots_refuse_to_cut():
  with pytest.raises(ValueError, match='row 1 has 3 tokens, not 1 to 2'):
    fill_slots([[1], [1, 2, 3]], 2)
  with pytest.raises(ValueError, match='row 0 has 0 tokens'):
    fill_slots([[]], 2)


def test_texts_of_a_turn():
  tokens = np.asarray([[ord(c) for c in 'pabiq']])
  turn = np.asarray([[0, 1, 1, 0, 2]])
  assert turn_texts(tokens, turn, 0, Letters()) == ['ab']
  assert turn_texts(tokens, turn, 1, Letters()) == ['q']
