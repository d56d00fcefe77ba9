"""The page of a report, from its text."""

from score_jax.replication.page import make_page
from score_jax.replication.tables import escape


def test_what_a_cell_holds_is_shown_and_not_obeyed():
  page = make_page(f'|x|\n|---|\n|{escape("a|b *c* <d>")}|\n', 'title & <b>', {})
  assert '<td>a|b *c* &lt;d&gt;</td>' in page and '<title>title &amp; &lt;b&gt;</title>' in page
