"""Holds the source to the rules of CONTRIBUTING.md, and each rule to an example it must catch.

A rule is a function from one file's source to a list of complaints, `LINE: what is wrong`, so that
the same function judges the repository and the small examples at the bottom.
"""

import ast
import io
import pathlib
import re
import tokenize
import warnings

import jax
import jax.numpy as jnp
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAX_FILE_LINES = 320
MAX_FUNCTION_LINES = 70  # without the docstring: nobody should save on words to keep a rule
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (ast.ClassDef, *FUNCTIONS)

# The floors. A file imports from its own room and from the rooms listed for it.
LOWER = {'core', 'model', 'tasks', 'runs', 'analysis', 'objective'}
MAY_IMPORT = {
  'core': set(),
  'model': {'core'},
  'tasks': {'core'},
  'runs': {'core'},
  'analysis': {'core'},
  'objective': {'core'},
  'planning': {'core'},
  'procedures': LOWER,
  # A replication is made of training runs, and a program at the root starts it: one floor.
  'programs': LOWER | {'procedures', 'replication', 'planning'},
  'replication': LOWER | {'procedures', 'programs'},
}
# Modules outside the package that a room must do without, and why.
DEVICE = {'jax', 'jaxlib', 'flax', 'optax', 'orbax', 'chex'}
FILES = {'os', 'io', 'pathlib', 'shutil', 'tempfile', 'etils', 'json', 'gguf', 'orbax'}
FLAGS = {'argparse', 'absl.flags', 'absl.app'}
NEVER = {'tensorflow', 'torch', 'transformers', 'tests', 'configs'}
MUST_NOT_IMPORT = {
  'core': (set(), ''),
  'model': (FLAGS, 'command lines are for programs'),
  'tasks': (DEVICE | FLAGS, 'tasks run on the host alone'),
  'runs': (FLAGS, 'command lines are for programs'),
  'analysis': (DEVICE | FLAGS, 'records in, numbers out'),
  'objective': (FILES | FLAGS, 'arrays in, arrays out'),
  'planning': (DEVICE | FILES | FLAGS, 'the text of a program in, numbers out'),
  'procedures': (FLAGS, 'command lines are for programs'),
  'programs': (set(), ''),
  'replication': (FLAGS, 'command lines are for programs'),
}


def imported_names(tree):
  """Yields (line, dotted name) of every import in a file, those inside functions included."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from ((node.lineno, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      base = '.' * node.level + (node.module or '')
      yield from ((node.lineno, f'{base}.{alias.name}') for alias in node.names)


def is_within(name, modules):
  """Whether a dotted name is one of the modules or lies in one of them."""
  return any(name == module or name.startswith(module + '.') for module in modules)


def floor_complaints(source, room):
  """What a file of `room` imports that it must not."""
  banned, why = MUST_NOT_IMPORT[room]
  complaints = []
  for line, name in imported_names(ast.parse(source)):
    parts = name.split('.')
    if name.startswith('.'):
      complaints.append(f'{line}: relative import of {name}; write score_jax.ROOM.FILE')
    elif is_within(name, NEVER):
      complaints.append(f'{line}: imports {name}, which the package must work without')
    elif is_within(name, banned):
      complaints.append(f'{line}: imports {name} in {room}; {why}')
    elif parts[0] == 'score_jax' and len(parts) > 1 and not parts[1].startswith('__'):
      target = parts[1] if parts[1] in MAY_IMPORT else 'programs'
      if target != room and target not in MAY_IMPORT[room]:
        allowed = ', '.join(sorted(MAY_IMPORT[room])) or 'nothing'
        complaints.append(f'{line}: {room} imports {name}; besides itself it may: {allowed}')
  return complaints


def is_documented(node):
  """Whether a node of the syntax tree defines something and says what it is."""
  return isinstance(node, DEFINITIONS) and bool(ast.get_docstring(node))


def docstring_complaints(source):
  """Public files, classes, functions and methods without a docstring.

  A method that one class of the file documents may go without in the others: an interface is
  explained once.
  """
  tree = ast.parse(source)
  complaints = [] if ast.get_docstring(tree) else ['1: the file has no docstring']
  classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
  explained = {node.name for c in classes for node in c.body if is_documented(node)}
  explained.add('setup')  # Flax calls it, readers do not

  def visit(parent, exempt):
    for node in parent.body:
      if not isinstance(node, DEFINITIONS) or node.name.startswith('_') or node.name in exempt:
        continue
      if not is_documented(node):
        complaints.append(f'{node.lineno}: {node.name} has no docstring')
      if isinstance(node, ast.ClassDef):
        visit(node, exempt=explained)

  visit(tree, exempt=set())
  return complaints


def size_complaints(source):
  """Files and functions that are too long."""
  num_lines = len(source.splitlines())
  complaints = []
  if num_lines > MAX_FILE_LINES:
    complaints.append(f'{num_lines}: {num_lines} lines; a file has at most {MAX_FILE_LINES}')
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, FUNCTIONS):
      size = node.end_lineno - node.lineno + 1
      if is_documented(node):
        size -= node.body[0].end_lineno - node.body[0].lineno + 1
      if size > MAX_FUNCTION_LINES:
        complaints.append(
          f'{node.lineno}: {node.name} has {size} lines without its docstring; '
          f'a function has at most {MAX_FUNCTION_LINES}'
        )
  return complaints


SUPPRESSION = re.compile(r'noqa|type:\s*ignore|pylint:|fmt:\s*(off|skip)|isort:|pragma:', re.I)
UNFINISHED = re.compile(r'\b(TODO|FIXME|XXX)\b')


def comment_complaints(source):
  """Comments that silence a tool, and marks of unfinished work in comments and docstrings."""
  complaints = []
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT:
      if SUPPRESSION.search(token.string):
        complaints.append(f'{token.start[0]}: silences a tool: {token.string}')
      if UNFINISHED.search(token.string):
        complaints.append(f'{token.start[0]}: unfinished: {token.string}')
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, (ast.Module, *DEFINITIONS)):
      if UNFINISHED.search(ast.get_docstring(node) or ''):
        complaints.append(f'{node.body[0].lineno}: unfinished: the docstring says so')
  return complaints


def python_files(*folders):
  """All Python files of the given folders of the repository, as paths relative to its root."""
  return sorted(
    path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob('*.py')
  )


PACKAGE = python_files('score_jax')
EVERYTHING = python_files('score_jax', 'configs', 'launch', 'tests', 'benchmarks')
EVERYTHING += [pathlib.Path('setup.py')]


def judge(paths, rule):
  """Fails with every complaint of the rule on every file, as `path:line: complaint`."""
  assert paths, 'no file to judge'
  complaints = []
  for path in paths:
    source = (ROOT / path).read_text(encoding='utf-8')
    complaints += [f'{path}:{text}' for text in rule(source, path)]
  assert not complaints, '\n' + '\n'.join(complaints)


def room_of(path):
  """'core', 'model', ... for a file of the package; 'programs' for one at its root."""
  return path.parts[1] if len(path.parts) > 2 else 'programs'


def test_floors():
  judge(PACKAGE, lambda source, path: floor_complaints(source, room_of(path)))


def test_docstrings():
  judge(PACKAGE, lambda source, path: docstring_complaints(source))


def test_sizes():
  judge(EVERYTHING, lambda source, path: size_complaints(source))


def test_comments():
  judge(EVERYTHING, lambda source, path: comment_complaints(source))


def test_tests_are_strict():
  """What conftest.py and pyproject.toml promise is in force."""
  assert jax.config.jax_numpy_rank_promotion == 'raise'
  with pytest.raises(ValueError, match='rank_promotion'):
    jnp.ones((2, 3)) + jnp.ones(3)
  with pytest.raises(UserWarning):
    warnings.warn('a warning is an error', stacklevel=1)


# From here on: each rule catches what it is for, and lets the like of it pass.


@pytest.mark.parametrize(
  ('room', 'source'),
  [
    ('core', 'from score_jax.model import decoder'),
    ('core', 'from score_jax import objective'),
    ('core', 'import score_jax.train'),
    ('core', 'def f():\n  from score_jax.runs import metrics'),
    ('model', 'from score_jax.tasks.math import grade'),
    ('tasks', 'import score_jax.runs.metrics'),
    ('tasks', 'import jax.numpy as jnp'),
    ('tasks', 'from flax import struct'),
    ('runs', 'from score_jax.model import decoder'),
    ('analysis', 'from score_jax.procedures.evaluation import Row'),
    ('analysis', 'import jax.numpy as jnp'),
    ('objective', 'from score_jax.model import decoder'),
    ('objective', 'from etils import epath'),
    ('planning', 'import jax'),
    ('procedures', 'from score_jax import train'),
    ('procedures', 'from absl import flags'),
    ('programs', 'import torch'),
    ('programs', 'import tensorflow.io'),
    ('programs', 'from . import train'),
  ],
)
def test_floors_can_fail(room, source):
  assert len(floor_complaints(source, room)) == 1


@pytest.mark.parametrize(
  ('room', 'source'),
  [
    ('core', 'import jax\nfrom score_jax.core import types'),
    ('model', 'from score_jax.core import types'),
    ('tasks', 'import tensorflow_datasets as tfds\nimport jaxtyping'),
    ('analysis', 'import numpy as np\nfrom score_jax.core import types'),
    ('procedures', 'from score_jax.objective import kl\nfrom absl import logging'),
    ('programs', 'from score_jax import train, __version__\nfrom absl import flags'),
  ],
)
def test_floors_let_pass(room, source):
  assert not floor_complaints(source, room)


def test_docstrings_can_fail():
  source = 'class A:\n  "A."\n  def f(self): pass\n  def _g(self): pass\ndef h(): pass\n'
  assert docstring_complaints(source) == [
    '1: the file has no docstring',
    '3: f has no docstring',
    '5: h has no docstring',
  ]
  explained = 'class B:\n  "B."\n  def f(self):\n    "F."\n'
  assert docstring_complaints('"File."\n' + source + explained) == ['6: h has no docstring']
  assert not docstring_complaints('"File."\ndef f():\n  "F."\n  def inner(): pass\n')


def test_sizes_can_fail():
  assert not size_complaints('x = 1\n' * MAX_FILE_LINES)
  assert size_complaints('x = 1\n' * (MAX_FILE_LINES + 1))
  body = '  x = 1\n' * (MAX_FUNCTION_LINES - 1)
  assert not size_complaints('def f():\n' + body)
  assert not size_complaints('def f():\n  """One.\n\n  Two.\n  """\n' + body)
  assert size_complaints('def f():\n' + body + '  x = 1\n')
  assert size_complaints('class A:\n  def f():\n' + '    x = 1\n' * MAX_FUNCTION_LINES)


@pytest.mark.parametrize(
  'comment', ['noqa', 'NOQA: E501', 'type: ignore', 'pylint: disable=x', 'fmt: off', 'ruff: noqa']
)
def test_suppressions_can_fail(comment):
  assert comment_complaints(f'x = 1  # {comment}\n')
  assert not comment_complaints(f'x = "# {comment}"\n')  # a string is no comment


@pytest.mark.parametrize('word', ['TODO', 'FIXME', 'XXX'])
def test_unfinished_work_can_fail(word):
  assert comment_complaints(f'# {word}(me): later\n')
  assert comment_complaints(f'def f():\n  """Does x.\n\n  {word}: y.\n  """\n')
  assert not comment_complaints('# a todo in lower case is a word among words\n')
