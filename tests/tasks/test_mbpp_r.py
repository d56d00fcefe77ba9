"""MBPP-R: the wrong program as an answer."""

from score_jax.tasks import base, mbpp_r


def test_a_program_to_repair_ends_as_the_shots_do():
  wrong = base.Problem(0, 'Add.', '', attempt='def add(a, b):\n  return a\n\n')
  assert mbpp_r.forced_answer(wrong) == 'def add(a, b):\n  return a\n[DONE]'
