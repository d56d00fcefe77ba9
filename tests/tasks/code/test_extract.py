"""The program in a model's text."""

import pytest

from score_jax.tasks.code import extract

CODE = 'def f():\n  return 1'


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
    (f'words [BEGIN] {CODE}', f' {CODE}'),
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
  ['```' * 300_000, '```\n' * 200_000, '[BEGIN]' * 150_000, '[DONE]' * 150_000, ' ' * 1_000_000],
  ids=['backticks', 'fences', 'begins', 'dones', 'spaces'],
)
def test_hostile_texts_take_no_time(text):
  for ending in ('', '`', '[DONE]', '\nx'):
    extract.extract_program(text + ending)
