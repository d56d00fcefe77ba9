"""Code cut into statements."""

from score_jax.tasks.code import statements as s

SOURCE = '''"""
Of x, and it

def no(): 0
"""
import a.b as c, d.e, f
from g import (
h,
i as j,
)

@k
# Why.
@l
class M:

  def n(self): 0
O: int = [
1, x
]
if O:
  P = 1
else:
  Q = 2
try:
  import r
except ImportError:
  r = None
async def t(
  u
):
  """
Two words
"""
v, w = 1, \\
2
x.y = 1
x += 1
from z import *'''


def test_statements_and_what_they_bind():
  found = s.statements(SOURCE.split('\n'), is_code=True)
  assert '\n'.join(line for one in found for line in one.lines) == SOURCE
  assert [(one.kind, one.names) for one in found if one.kind != s.OTHER] == [
    (s.IMPORT, {'c', 'd', 'f'}),
    (s.IMPORT, {'h', 'j'}),
    (s.DEFINITION, {'M'}),
    (s.ASSIGNMENT, {'O'}),
    (s.IMPORT, {'r'}),
    (s.DEFINITION, {'t'}),
    (s.ASSIGNMENT, {'v', 'w'}),
    (s.IMPORT, {'*'}),
  ]


def test_sentences_are_left_out():
  text = 'Sure (see below:\n\nx\ndef f():\n  0\n\nThis is it:\n  so\nand more\n\nf()\n\nDone.\n'
  for is_code in (False, True):
    found = s.statements(text.split('\n'), is_code)
    lines = [line for one in found for line in one.lines if line]
    assert lines == ['def f():', '  0', 'f()']
