"""Strings and comments told from code, and sentences too."""

import pytest

from score_jax.tasks.code import lexing


@pytest.mark.parametrize(
  ('line', 'quote', 'bare'),
  [
    ('x = 1', '', ('x = 1', '')),
    ('x = "a\\"b" + \'c"\'  # d "', '', ('x = "" + ""  ', '')),
    ('x = """a', '', ('x = ', '"""')),
    ('a""b"\\"""" + "c"', '"""', (' + ""', '')),
    ("'''''' + '''", '', (' + ', "'''")),
    ("it's # b", '', ("it's # b", '')),
    ('anything "# at all', "'''", ('', "'''")),
    ('x = "a \\', '', ('x = "a \\', '')),
  ],
)
def test_a_line_without_its_strings(line, quote, bare):
  code, after = lexing.bare(line, quote)
  assert (code.replace('""', ''), after) == (bare[0].replace('""', ''), bare[1])


CODE = (
  *('x = 1.', 'def f(x): return x', 'a, b = b, a', 'x: int = 3', 'class A(B, metaclass=C):'),
  *('for x in y: print(x)', 'if not x is None and y not in z:', 'x = y if z else 1', 'match x:'),
  *('assert f(x) == 1, ""', 'async def f(): pass', 'x = lambda a, b=1: a', '...', 'x[1:] = -y'),
  *(
    'print(f"")',
    '@f.g(x)',
    'with a as b, c as d:',
    'x != y',
    'x[1:',
    'else:',
    'try:',
    '~x',
    'del x',
  ),
)
PROSE = (
  *('This function adds.', 'Done.', 'It is not.', 'Output: O(n)', 'Explanation:', '- O(n)'),
  *('* one', '**Note**', '> quoted', '<answer>', '`f` is', 'What now?', 'f(x) returns x', '---'),
  *('Run 3 times', 'for the list', '→ 3', '$ ls', '!pip install', '%time f()', '[PYTHON]', 'py'),
  *('1. One', '[/PYTHON]', 'This is it:'),
)


@pytest.mark.parametrize('line', CODE)
def test_code_is_no_prose(line):
  assert not lexing.is_prose(line)


@pytest.mark.parametrize('line', PROSE)
def test_prose_is_no_code(line):
  assert lexing.is_prose(line)
  with pytest.raises((SyntaxError, NameError)):  # Python says so too
    exec(line, {})
