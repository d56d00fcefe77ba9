"""Small texts of the report."""

from score_jax.replication.report import make_page
from score_jax.replication.tables import escape, seconds_text


def test_small_texts():
  assert seconds_text(80) == '80 s' and seconds_text(3600) == '1 h 0 min'
  page = make_page(f'|x|\n|---|\n|{escape("a|b *c* <d>")}|\n', 'title & <b>', {})
  assert '<td>a|b *c* &lt;d&gt;</td>' in page and '<title>title &amp; &lt;b&gt;</title>' in page
