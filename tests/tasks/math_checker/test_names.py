"""Names on the left of `=`, and lists; tests/math_pairs.txt holds more, as answers."""

import pytest

from score_jax.tasks.math_checker import names

QUANTITIES = [
  *('I', 'e', 'i', r'\pi', 'I_1', 'F_{10}', "f'(2)", 'f^{-1}(3)', r'(f \circ g)(2)', 'P(A|B)'),
  *(
    'P(X=2)',
    'E[X]',
    r'\mathbb{E}(X)',
    '[ABC]',
    r'\triangle ABC',
    r'\frac{NO}{BO}',
    'AB/CD',
    'A:B',
  ),
  *(r'|\vec{v}|', r'\|\mathbf{v}\|', r'\sin A', r'|A \cup B|', r'\gcd(4,6)', 'Total area', "A'B'"),
]
STATEMENTS = [
  *('|x|', '2I', 'I^2', 'e^x', '-e', 'x+y', r'\sin x', r'\frac{x}{y}', r'\frac{AB}{2}', 'AB^2'),
  *('f(x) + 1', 'f(2)f(3)', '1 - P(A)', r'|\vec{a}| + |\vec{b}|', 'Half', 'Twice the sum', '11a+c'),
]


@pytest.mark.parametrize('name', QUANTITIES)
def test_a_quantity_becomes_a_letter(name):
  letter, _, value = names.as_letters(f'{name} = 5').rpartition('=')
  assert letter.startswith('Q_{') and value == ' 5'
  assert names.as_letters(f'  {name}= 5').startswith(letter)


@pytest.mark.parametrize('name', STATEMENTS)
def test_a_statement_stays(name):
  assert names.as_letters(f'{name} = 5') == f'{name} = 5'


def test_different_quantities_are_different_letters():
  letters = {names.as_letters(f'{name}=5') for name in QUANTITIES}
  assert len(letters) == len(QUANTITIES)


@pytest.mark.parametrize(
  'reference, answer, pairs',
  [
    ('x=-5, p=14/3', '-5, 14/3', [('-5', '-5'), ('14/3', '14/3')]),
    ('x=-5, p=14/3', 'p=2 and x=1', [('-5', '1'), ('14/3', '2')]),
    ('x=1, y=2', '(3,4)', [('1', '3'), ('2', '4')]),
    ('(3,4)', 'y=2, x=1', [('3', '1'), ('4', '2')]),
    ('(x,y) = (1,2)', 'y=4, x=3', [('1', '3'), ('2', '4')]),
    ('x=1, y=2', 'a=1, b=2', [('', '')]),
    ('x=1, y=2', r'\{1,2\}', [('', '')]),
    ('1, 2', 'x=1 or y=2', [('', '')]),
    # Of one name, and no list of names.
    ('1, 2', 'x=1 or x=2', None),
    ('1, -2', 'x_1=-2, x_2=1', None),
    ('x=5', '5', None),
    ('1, 2', '2, 1', None),
  ],
)
def test_values_of_several_names(reference, answer, pairs):
  found = names.paired(reference, answer)
  assert (found and [tuple(each.strip() for each in pair) for pair in found]) == pairs


@pytest.mark.parametrize(
  'text, listed',
  [
    ('21,16 or 11', '21,16, 11'),
    (r'21, 16, \text{ and } 11', '21, 16, 11'),
    (r'1~\text{and}~\frac12', r'1, \frac12'),
    (r'x=1 \lor x=2', 'x=1, x=2'),
    ('1, 234 and 5', '1, 234, 5'),
    # No lists: a statement, a word, half a list.
    *((text, text) for text in (r'p \lor q', 'factor', 'and 5', '5 and', r'\{1 \text{ or } 2\}')),
  ],
)
def test_lists_with_words(text, listed):
  assert names.with_commas(text) == listed
