"""The program in a model's text."""

import time

import pytest

from score_jax.tasks.code import extract

CODE = 'def f():\n  return 1'
OLD = CODE.replace('1', '0')


def block(code, info='python', fence='```'):
  return f'{fence}{info}\n{code}\n{fence}'


@pytest.mark.parametrize(
  ('text', 'program'),
  [
    (CODE, CODE),
    (f'```python\n{CODE}\n```', CODE),
    (f'Text.\n```py\nx = 1\n```\nBetter:\n```python\n{CODE}\n```\nRun:\n```\n$ f\n```', CODE),
    (f'```\n{CODE}\n```\n```bash\nls\n```', CODE),
    (f'```python\n{CODE}', CODE),  # cut off
    (f'```python\n{CODE}\n```\nUse it:\n```python\nprint(f())\n```', CODE),
    (f'1. So:\n   ```python\n   {CODE.replace(chr(10), chr(10) + "   ")}\n   ```', CODE),
    (f'  ```Python  \n{CODE}\n  ```', CODE),
    ('```\n    return 1\n```', '    return 1'),  # the body of a function stays one
    (' ```\n\n     x = 1\n    return x\n ```', '\n    x = 1\n   return x'),
    (f'[BEGIN]\n{CODE}\n[DONE]', f'\n{CODE}\n'),
    (f'{CODE}\n[DONE]\n\nYou are an expert\n[BEGIN]\nother\n[DONE]', f'{CODE}\n'),
    (f'[BEGIN]\n```python\n{CODE}\n```\n[DONE]\n```python\nother\n```', CODE),
    (f'words [BEGIN] {CODE}', 'def f():\n return 1'),
    ('x = 1\n[DONE]', 'x = 1\n'),
    ('import math\nx = 1', 'import math\nx = 1'),
    *((text, None) for text in ('', ' \n', 'It is 4.', '[DONE]', '[BEGIN][DONE]', '```\n```')),
    ('```python\n\n```', None),
    ('I define it.', None),
  ],
)
def test_the_program_in_a_text(text, program):
  assert extract.extract_program(text) == program


@pytest.mark.parametrize(
  'text',
  [
    # The last that defines what the tests call, whatever defines more after it.
    f'{block(OLD)}\n{block(CODE)}\n{block("def main():" + chr(10) + "  f()")}',
    f'{block(CODE)}\n{block("def test_f():" + chr(10) + "  assert f() == 1", "")}',
    f'{block(CODE)}\n{block("from solution import f" + chr(10) + "f()")}',
    f'{block(CODE)}\n{block("from solution import *" + chr(10) + "print(f())")}',
    f'{block(CODE)}\n{block("f = f()" + chr(10) + "print(f)")}',
    f'{block(CODE)}\n{block("class A:" + chr(10) + "  def f(self):" + chr(10) + "    return 0")}',
    f'{block(CODE)}\nNot:\n{block(chr(34) * 3 + chr(10) + OLD + chr(10) + chr(34) * 3)}',
    f'{block(CODE)}\n{block("# def f():" + chr(10) + "#   return 0")}',
    f'{block(CODE)}\n{block("def f()" + chr(10) + "  0" + chr(10) + "end", "ruby")}',
    block(CODE, 'text'),  # a wrong mark
    # Fences.
    block(f'The code:\n{block(CODE)}', 'markdown', '````'),
    block(block(CODE), '', '~~~~'),
    f'```python\n{CODE}``` and words',
    f'```python {CODE}\n```',
    f'{CODE}\n```\nUse ```f()``` so.\n~~~text\n1\n~~~',
    f'Use ```f()``` so.\n\n{CODE}\n\n```f``` is it.',
    f'~~~python\n{CODE}\n```',
    # A string that does not end ends with its block.
    f'{block(OLD + chr(10) + chr(34) * 3)}\nNow:\n{block(CODE)}',
    # Sentences, and what else is no Python.
    f"Here's it:\n{CODE}\n\nIt doesn't fail: O(1).\n\n- f(): see above\n1. One\n**Done.**\n---",
    f'python\n{CODE}\nOutput: 1\n',
    f"Sure:\n'''python\n{CODE}\n'''",
    f'[PYTHON]\n{CODE}\n[/PYTHON]',
    f'```python\n!pip install x\n{CODE}\n```',
    # Marks within words, and a thought that nothing begins.
    f'It is as <think> says.\n{block(CODE)}',
    f'{block(OLD)}</think>{CODE}',
  ],
)
def test_the_last_block_that_defines_what_the_tests_call(text):
  assert extract.extract_program(text, {'f'}).strip() == CODE


@pytest.mark.parametrize(
  ('blocks', 'program'),
  [
    (['import math', 'def f():\n  return math.e'], 'import math\ndef f():\n  return math.e'),
    (
      ['from math import (\n  e,\n  pi as p,\n)\nprint(e)', 'def f():\n  return p'],
      'from math import (\n  e,\n  pi as p,\n)\ndef f():\n  return p',
    ),
    (['from math import *', 'def f():\n  return e'], 'from math import *\ndef f():\n  return e'),
    (
      ['def g():\n  return 1\n\ndef f():\n  return 0\n\nprint(f())', 'def f():\n  return g()'],
      'def g():\n  return 1\n\ndef f():\n  return g()',
    ),
    # Helpers of helpers, in whatever order; the last one counts, also where it was there.
    (
      ['N = 2\n@h\ndef g():\n  return N', 'def f():\n  return g()', 'def h(x):\n  return x'],
      'N = 2\n@h\ndef g():\n  return N\ndef h(x):\n  return x\ndef f():\n  return g()',
    ),
    (
      ['def g():\n  return 0\ndef f():\n  return g()', 'def g():\n  return 1'],
      'def g():\n  return 0\ndef f():\n  return g()\ndef g():\n  return 1',
    ),
    # Constants, but no results of a demonstration, and nothing that asks for input.
    (
      ['N = 2\nx = f(N)\nM = int(input())', 'def f(M):\n  x = N\n  return x * M'],
      'N = 2\ndef f(M):\n  x = N\n  return x * M',
    ),
    (['M = 2', 'def f():\n  return g()', 'g = lambda: 1'], 'g = lambda: 1\ndef f():\n  return g()'),
    (
      ['import math', 'from __future__ import annotations\nf = lambda: math.e'],
      'from __future__ import annotations\nimport math\nf = lambda: math.e',
    ),
    # What another block needs is not needed here.
    (['import numpy', CODE, 'import os\nos.remove("a")'], CODE),
  ],
)
def test_a_block_gets_what_it_needs_of_the_others(blocks, program):
  text = '\nThen:\n'.join(map(block, blocks))
  assert extract.extract_program(text, {'f'}) == program


@pytest.mark.parametrize(
  ('text', 'program'),
  [
    (f'<think>\n{block(CODE)}\n</think>\nI do not know.', None),  # thought of, not answered
    (f'<think>\n{block(CODE)}', CODE),
    (f'{CODE}\nx = "[DONE]"\ny = "</think>"', f'{CODE}\nx = "[DONE]"\ny = "</think>"'),
    (block('def g():\n  return 1'), 'def g():\n  return 1'),  # the tests say what is missing
    ('\ufeff' + block(CODE).replace('\n', '\r\n'), CODE),
    (CODE.replace('\n', '\r'), CODE),
  ],
)
def test_what_counts_as_an_answer(text, program):
  assert extract.extract_program(text, {'f'}) == program


@pytest.mark.parametrize(
  ('text', 'body'),
  [
    ('  return 1', '  return 1\n'),
    ('\n\n  x = """\na\n"""\n\n  return x\ndef g(): 0', '\n\n  x = """\na\n"""\n\n  return x\n'),
    ('  return 1\n```\nWords.', '  return 1\n'),
    ('So:\n```python\n  return 1\n```', '  return 1\n'),
    ('<think>\n  x\n</think>\n  return 1```', '\n  return 1\n'),
    (CODE, None),
    ('', None),
  ],
)
def test_the_body_in_a_text(text, body):
  assert extract.extract_body(text) == body


PIECES = (
  *('```', '```\n', '~~~\n````\n', '[BEGIN]', '[DONE]', '</think>', ' ', '\n', '"', '\\"', '\'"'),
  *('"""\n', '```py\n"""\n', "'''\\", 'def f():\n', '@x\n', 'try:\n', 'import x\n', 'x = f\n'),
  *('(', '\\\n', 'a.', '- ', '1. ', 'x ` ', '# `', 'a,', 'x: ', 'x = ', ' \t', '```a ', '\ud800'),
)


def test_hostile_texts_take_time_in_proportion():
  for piece in PIECES:
    for start in ('', 'def f():\n  """'):
      text = start + piece * (15_000 // len(piece))
      begin = time.perf_counter()
      extract.extract_program(text, {'f'})
      extract.extract_body(text)
      # At worst 10 us a character, on a slow machine; in proportion to its square it were minutes.
      assert time.perf_counter() - begin < 2, (start, piece)


INDENTED = CODE.replace('def', '    def').replace('\n', '\n    ')


@pytest.mark.parametrize(
  ('text', 'program'),
  [
    (f'So:\n\n{INDENTED}\n', f'{CODE}\n'),
    (f'```python\n{INDENTED}\n```', CODE),
    (f'- ```python\n  {CODE.replace(chr(10), chr(10) + "  ")}\n  ```', CODE),
    (f'1. ```\n   {CODE.replace(chr(10), chr(10) + "   ")}\n   ```\n2. So.', CODE),
    (f'if True:\n{INDENTED}', None),  # as it was: no prose, and nothing that it defines
  ],
)
def test_a_program_that_is_indented_as_a_whole(text, program):
  assert extract.extract_program(text, {'f'}) == program


@pytest.mark.parametrize(
  ('first', 'header'),
  [
    ("T = TypeVar('T')", 'def f(x: T) -> T:'),
    ('K = 4', 'def f(x, k=K):'),
    ("f = namedtuple('f', 'a b')", 'def g(x: f):'),
  ],
)
def test_a_constant_of_another_block_in_a_header(first, header):
  program = f'{first}\n{header}\n  return 1'
  text = f'{block(first)}\nThen:\n{block(header + chr(10) + "  return 1")}'
  assert extract.extract_program(text, {'f', 'g'} if 'tuple' in first else {'f'}) == program
