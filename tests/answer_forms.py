r"""The forms in which models answer with a program.

    for name, form in FORMS.items():
      text = form(Answer(program, names, draft))

`program` is what the text commits to; `draft` is another one, which the text withdraws or thinks
of, and which must not count. Every reference is wrapped in each by
wrapped_references.py.
"""

import ast
import dataclasses
import warnings


@dataclasses.dataclass(frozen=True)
class Answer:
  """What to wrap: a program, the names that its tests call, and a draft that must not count."""

  program: str
  names: frozenset[str]
  draft: str

  @property
  def name(self) -> str:
    return min(self.names)

  @property
  def _nodes(self):
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # some programs of MBPP write '\w'
      return ast.parse(self.program).body

  @property
  def split(self) -> tuple[str, str]:
    """What stands before the function that the tests call, and the rest."""
    lines = self.program.split('\n')
    start = next(
      min([node.lineno, *(one.lineno for one in getattr(node, 'decorator_list', []))])
      for node in self._nodes
      if getattr(node, 'name', None) in self.names or isinstance(node, ast.Assign)
    )
    return '\n'.join(lines[: start - 1]), '\n'.join(lines[start - 1 :])

  def with_docstring(self, words: str) -> str:
    """The program, with a docstring in the function that the tests call."""
    lines = self.program.split('\n')
    for node in self._nodes:
      if isinstance(node, ast.FunctionDef) and node.name in self.names:
        first = node.body[0]
        if first.lineno > node.lineno:
          indent = lines[first.lineno - 1][: first.col_offset]
          doc = [f'{indent}"""Doc.', *(indent + word for word in words.split('\n')), f'{indent}"""']
          lines[first.lineno - 1 : first.lineno - 1] = doc
          break
    return '\n'.join(lines)


def fenced(program: str, info: str = 'python', fence: str = '```') -> str:
  return f'{fence}{info}\n{program}\n{fence}'


def indented(text: str, by: str = '   ') -> str:
  return '\n'.join(by + line if line else line for line in text.split('\n'))


DEMO = 'numbers = [3, 1, 2]\nresult = {0}(numbers)\nprint(result)'
MAIN = "def main():\n    print({0}(int(input())))\n\nif __name__ == '__main__':\n    main()"
CHECKS = 'def test_{0}():\n    assert {0}(1) == 2\n\ntest_{0}()'
IMPORTED = 'from solution import {0}\n\nprint({0}(3))'
WORDS = "It doesn't sort; it's linear, as the task's tests ask."
EXAMPLE = '\n```\nf(1)\n```\n\n```python\nf(2)\n```'

INFOS = (
  *('', 'py', 'Python', 'python3', 'python3.11', 'Python 3', '{python}', '{.python .numberLines}'),
  *(
    'python title="a.py"',
    'python:solution.py',
    'solution.py',
    ' python ',
    'tool_code',
    'ipython3',
  ),
)

FORMS = {
  'the program alone': lambda a: a.program,
  '[BEGIN] and [DONE]': lambda a: (
    f'[BEGIN]\n{a.program}\n[DONE]\n\nNext.\n[BEGIN]\n{a.draft}\n[DONE]'
  ),
  'only [DONE]': lambda a: f'{a.program}\n[DONE]\n{a.draft}',
  'sentences around it': lambda a: f"Here's the code.\n\n{a.program}\n\n{WORDS}\n\n- It works.",
  **{
    f'fence, "{info}"': lambda a, info=info: f'So:\n\n{fenced(a.program, info)}' for info in INFOS
  },
  'four back-ticks': lambda a: fenced(a.program, fence='````') + f'\n{WORDS}',
  'tildes': lambda a: 'Sure!\n' + fenced(a.program, fence='~~~'),
  'six tildes': lambda a: fenced(a.program, ' Python 3', '~~~~~~'),
  'longer closing fence': lambda a: f'```python\n{a.program}\n`````\n{WORDS}',
  'indented closing fence': lambda a: f'```python\n{a.program}\n   ```\n{WORDS}',
  'lone closing fence': lambda a: f'{a.program}\n```',
  'lone closing fence, words': lambda a: f'{a.program}\n```\n\n{WORDS}',
  'lone closing fence, words behind': lambda a: f'{a.program}\n``` {WORDS}\n\nThis is all.',
  'words behind the closing fence': lambda a: f'{fenced(a.program)} This is it.\n\n{WORDS}',
  'closing fence on the last line': lambda a: f'```python\n{a.program}```\n{WORDS}',
  'lone fence on the last line': lambda a: f'{a.program}```\n{WORDS}',
  'words before the opening fence': lambda a: f'The code: {fenced(a.program)}\n{WORDS}',
  'no closing fence': lambda a: f'So:\n```python\n{a.program}',
  'no closing fence, words': lambda a: f'```python\n{a.program}\n\n{WORDS}',
  'a draft that is not closed': lambda a: f'```python\n{a.draft}\n\nBetter:\n\n{fenced(a.program)}',
  'fences in the docstring': lambda a: fenced(a.with_docstring(EXAMPLE)) + f'\n{WORDS}',
  'fences in the docstring, bare': lambda a: a.with_docstring(EXAMPLE),
  'fences in the docstring, BEGIN': lambda a: f'[BEGIN]\n{a.with_docstring(EXAMPLE)}\n[DONE]',
  'one fence in the docstring': lambda a: fenced(a.with_docstring('```')) + f'\n{WORDS}',
  'fences in strings': lambda a: fenced(
    f'FENCE = "```"\nTEXT = """\n```python\n"""\n{a.program}\n\nEND = \'\'\'\n```\'\'\''
  ),
  'a fence in a comment': lambda a: fenced(f'# ```python\n{a.program}\n# ```'),
  'a demonstration after it': lambda a: f'{fenced(a.program)}\nUse:\n{fenced(DEMO.format(a.name))}',
  'a main after it': lambda a: f'{fenced(a.program)}\nRun:\n{fenced(MAIN.format(a.name))}',
  'tests after it': lambda a: f'{fenced(a.program)}\nTest:\n{fenced(CHECKS.format(a.name), "")}',
  'an import of it after it': lambda a: f'{fenced(a.program)}\n{fenced(IMPORTED.format(a.name))}',
  'a demonstration before it': lambda a: f'{fenced(DEMO.format(a.name))}\n{fenced(a.program)}',
  'its output after it': lambda a: f'{fenced(a.program)}\nPrints:\n{fenced("def: 3", "text")}',
  'a shell after it': lambda a: f'{fenced(a.program)}\n{fenced("pip install x", "bash")}\n{WORDS}',
  'a shell before it': lambda a: f'{fenced("pip install x", "sh")}\n\n{fenced(a.program, "")}',
  'its output, unmarked': lambda a: f'{fenced(a.program)}\n{WORDS}\n{fenced("[1, 2]", "")}',
  'a draft before it': lambda a: f'{fenced(a.draft)}\nNo. Better:\n{fenced(a.program)}',
  'an unmarked draft before it': lambda a: f'{fenced(a.draft, "")}\nBetter:\n{fenced(a.program)}',
  'a marked draft before it': lambda a: f'{fenced(a.draft)}\nBetter:\n{fenced(a.program, "")}',
  'a bare draft before it': lambda a: f'{a.draft}\n\nBetter:\n\n{fenced(a.program)}',
  'a draft in <think>': lambda a: f'<think>\n{fenced(a.draft)}\n</think>\n\n{fenced(a.program)}',
  'a draft in <think>, bare': lambda a: f'<think>\n{a.draft}\n</think>\n{a.program}',
  'an open fence in <think>': lambda a: f'<think>\n```python\n{a.draft}\n</think>\n\n{a.program}',
  'only </think>': lambda a: f'Hm.\n{fenced(a.draft)}\n</think>\n{fenced(a.program)}',
  '<think> around words': lambda a: f'<think>It\'s """ easy.</think>\n{fenced(a.program)}',
  'an open <think>': lambda a: f'<think>\nLet me see.\n{fenced(a.program)}',
  'helpers in a block before': lambda a: '\nThen:\n'.join(map(fenced, filter(None, a.split))),
  'helpers in a block after': lambda a: '\nAnd:\n'.join(map(fenced, filter(None, a.split[::-1]))),
  'each statement explained': lambda a: 'First:\n'.join(map(fenced, filter(None, a.split))),
  'BOM': lambda a: f'\ufeff{a.program}',
  'BOM, fence': lambda a: f'\ufeff{fenced(a.program)}',
  'BOM in the fence': lambda a: fenced(f'\ufeff{a.program}'),
  'CRLF': lambda a: f'So:\n{fenced(a.program)}\n{WORDS}'.replace('\n', '\r\n'),
  'CRLF, bare': lambda a: f'{a.program}\n```'.replace('\n', '\r\n'),
  'in a list': lambda a: f'1. So:\n\n{indented(fenced(a.program))}\n\n2. {WORDS}',
  'in a block of Markdown': lambda a: fenced(f'# A\n{fenced(a.program)}\nB', 'markdown', '````'),
  'in a block of Markdown, three': lambda a: fenced(f'# A\n{fenced(a.program)}\nB', 'markdown'),
  '<answer>': lambda a: f'<answer>\n{fenced(a.program)}\n</answer>',
  '<answer>, bare': lambda a: f'<answer>\n{a.program}\n</answer>',
  'headings': lambda a: f'### Code\n\n{fenced(a.program)}\n\n### Why\n\n**Time:** O(n)\n{WORDS}',
}
# HumanEval: what goes on from the docstring.
BODIES = {
  'a body': lambda a: a.program,
  'a body, words': lambda a: f'{a.program}\n\n{WORDS}',
  'a body in a fence': lambda a: f'So:\n{fenced(a.program)}\n{WORDS}',
  'a body, lone closing fence': lambda a: f'{a.program}\n```\n{WORDS}',
  'a body, fence on its last line': lambda a: f'{a.program}```\n{WORDS}',
  'a body after <think>': lambda a: f'<think>\n{fenced(a.draft)}\n</think>\n{a.program}',
  'a body, BOM and CRLF': lambda a: f'\ufeff{a.program}\n```'.replace('\n', '\r\n'),
}
# In these the program is more than the one that was wrapped, or less: it uses no helper of its own,
# or a variable is also one of the demonstration. They are graded.
CHANGING = (
  *('fences in strings', 'a fence in a comment', 'each statement explained'),
  *('helpers in a block before', 'helpers in a block after', 'a demonstration before it'),
  *(name for name in FORMS if 'docstring' in name),
)
