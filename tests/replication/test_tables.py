"""Small texts of the report."""

from score_jax.replication.tables import cell, seconds_text


def test_small_texts():
  assert seconds_text(80) == '80 s' and seconds_text(3600) == '1 h 0 min'
  some = {'mean': 0.25, 'low': 0.1, 'high': 0.5, 'denominator': 8}
  assert cell(some) == '25.0 [10.0, 50.0] of 8' and cell(None) == '–'
  assert cell({'mean': None, 'low': None, 'high': None, 'denominator': 0}) == '– of 0'
