"""A text cut at its fences."""

import pytest

from score_jax.tasks.code import fences


def cut(text):
  return [(block.kind, '\n'.join(block.lines)) for block in fences.blocks(text)]


@pytest.mark.parametrize(
  ('text', 'blocks'),
  [
    ('a\n```python\nb\n```\nc', [('outside', 'a'), ('python', 'b'), ('outside', 'c')]),
    ('````\na\n```\nb\n````', [('outside', 'a'), ('unmarked', 'b')]),
    ('~~~py\na\n~~~~\nb', [('python', 'a'), ('outside', 'b')]),
    ('  ```sh\n  a\n    b\n    ```', [('foreign', 'a\n  b')]),
    # Forgiven: words behind the end, another block before it, the end of a line, no end.
    ('```py\na\n``` b\nc', [('python', 'a'), ('outside', 'c')]),
    ('```py\na\n```text\nb\n```', [('python', 'a'), ('foreign', 'b')]),
    ('a: ```py\nb```\nc', [('outside', 'a:'), ('python', 'b'), ('outside', 'c')]),
    ('```py\na', [('python', 'a')]),
    ('```py def f(): 1```\nb', [('python', 'def f(): 1'), ('outside', 'b')]),
    # No fence in a string, be it of one line or of more.
    ('```\nx = "```"\n```', [('unmarked', 'x = "```"')]),
    ('```\nx = """\n```\n"""\n```\nb', [('unmarked', 'x = """\n```\n"""'), ('outside', 'b')]),
    ('def f(x):\n  "```"\n  # ```\n  1```', [('outside', 'def f(x):\n  "```"\n  # ```\n  1')]),
    # Nor within a sentence. A string that does not end is a mistake.
    ('a ```b``` c\n```b``` c', [('outside', 'a ```b``` c\n```b``` c')]),
    ('```\n"""\n```\na\n```\nb\n```', [('unmarked', '"""'), ('outside', 'a'), ('unmarked', 'b')]),
  ],
)
def test_a_text_is_cut_at_its_fences(text, blocks):
  assert cut(text) == blocks


@pytest.mark.parametrize(
  ('kind', 'words'),
  [
    *(('python', words) for words in ('python3.11', 'Python 3', '{.python #a}', 'py t=a', 'a.py')),
    *(('foreign', words) for words in ('bash', 'Output:', 'c++', 'text a.py', '{.json}')),
    *(('unmarked', words) for words in ('', 'code', '{#a}')),
  ],
)
def test_the_words_behind_a_fence_say_what_it_holds(kind, words):
  assert cut(f'```{words}\na\n```') == [(kind, 'a')]


def test_no_line_of_a_block_is_a_fence():
  text = '`````md\n````md\n```md\n~~~\nx\n~~~\n```\n````\n`````\n'
  for count in range(1, 5):
    lines = [line for block in fences.blocks(text * count) for line in block.lines]
    assert not [line for line in lines if line.startswith(('```', '~~~'))]
