"""LaTeX as it stands on the page."""

import pytest

from score_jax.tasks.math_checker.printed import printed


@pytest.mark.parametrize(
  'latex, page',
  [
    ('{5}{7}', '5 7'),
    (r'\boxed{5}\boxed{7}', '5 7'),
    (r'\boxed{2+3}\cdot 7', r'{2+3}\cdot 7'),
    (r'\frac{1}{2}{3}', r'\frac{1}{2} 3'),
    (r'\frac1{2}', r'\frac1{2}'),
    (r'x^{2}{3}', 'x^{2} 3'),
    (r'{5 \choose 2}', r'{5 \choose 2}'),
    (r'\sqrt[3]{5}', r'\sqrt[3]{5}'),
    (r'\phantom{7}5', None),
    (r'5\newcommand', None),
  ],
)
def test_braces_print_nothing(latex, page):
  found = printed(latex)
  assert (found if found is None else ' '.join(found.split())) == page
