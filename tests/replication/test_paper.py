"""The paper's own numbers."""

import pytest

from score_jax.replication import paper


def test_the_papers_numbers_add_up():
  """Delta is t2 - t1 and i->c - c->i: a digit copied wrongly would show."""
  for t1, t2, delta, i2c, c2i in paper.MATH.values():
    assert t2 - t1 == pytest.approx(delta, abs=0.01)
    if i2c is not None:
      assert i2c - c2i == pytest.approx(delta, abs=0.01)


def test_a_row_that_the_paper_lacks_is_refused():
  with pytest.raises(ValueError, match="no row 'starr'"):
    paper.fractions('starr')
