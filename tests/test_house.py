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
from makers import ROOT

MAX_FILE_LINES = 320
MAX_FUNCTION_LINES = 70  # without the docstring: nobody should save on words to keep a rule
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (ast.ClassDef, *FUNCTIONS)

# The layers, lowest first. A file imports from its own folder and from the layers below it.
LAYERS = (
  {'core', 'analysis'},
  {'tokenizers', 'model', 'objective', 'tasks', 'runs'},
  {'rollout', 'formats'},
  {'setup'},
  {'training', 'evaluation', 'cli'},
  {'replication', 'planning'},
  {'programs'},  # the files at the root: run as `python -m score_jax.NAME`, imported by none
)
LAYER_OF = {folder: layer for layer, folders in enumerate(LAYERS) for folder in folders}
# Modules outside the package that a folder must do without, and why.
DEVICE = {'jax', 'jaxlib', 'flax', 'optax', 'orbax', 'chex'}
FILES = {'os', 'io', 'pathlib', 'shutil', 'tempfile', 'etils', 'json', 'gguf', 'orbax'}
FLAGS = {'argparse', 'absl.flags', 'absl.app'}
NEVER = {'tensorflow', 'torch', 'transformers', 'tests', 'configs'}
MUST_NOT_IMPORT = {
  'tasks': (DEVICE | FLAGS, 'tasks run on the host alone'),
  'analysis': (DEVICE | FLAGS, 'records in, numbers out'),
  'objective': (FILES | FLAGS, 'arrays in, arrays out'),
  'core': (set(), ''),
  'cli': (set(), ''),
  'programs': (set(), ''),
}
ELSEWHERE = (FLAGS, 'command lines are for programs')


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


def layer_complaints(source, folder):
  """What a file of `folder` imports that it must not."""
  banned, why = MUST_NOT_IMPORT.get(folder, ELSEWHERE)
  complaints = []
  for line, name in imported_names(ast.parse(source)):
    parts = name.split('.')
    if name.startswith('.'):
      complaints.append(f'{line}: relative import of {name}; write score_jax.FOLDER.FILE')
    elif is_within(name, NEVER):
      complaints.append(f'{line}: imports {name}, which the package must work without')
    elif is_within(name, banned):
      complaints.append(f'{line}: imports {name} in {folder}; {why}')
    elif parts[0] == 'score_jax' and len(parts) > 1 and not parts[1].startswith('__'):
      target = parts[1] if parts[1] in LAYER_OF else 'programs'
      if target == 'programs':
        complaints.append(f'{line}: imports {name}, a program; what it needs lies in a folder')
      elif target != folder and LAYER_OF[target] >= LAYER_OF[folder]:
        complaints.append(f'{line}: {folder} imports {name}, which is no layer below it')
  return complaints


def root_complaints(source):
  """A file at the root of the package that is no program."""
  is_program = any(
    isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
    for node in ast.parse(source).body
  )
  return [] if is_program else ["1: no program: it has no `if __name__ == '__main__'`"]


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


def folder_of(path):
  """'core', 'model', ... for a file of the package; 'programs' for one at its root."""
  return path.parts[1] if len(path.parts) > 2 else 'programs'


def test_layers():
  judge(PACKAGE, lambda source, path: layer_complaints(source, folder_of(path)))
  folders = {path.parts[1] for path in PACKAGE if len(path.parts) > 2}
  assert folders == LAYER_OF.keys() - {'programs'}
  assert len(LAYERS) <= 7


def test_the_root_holds_programs():
  programs = [path for path in PACKAGE if len(path.parts) == 2 and path.name != '__init__.py']
  judge(programs, lambda source, path: root_complaints(source))


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
  ('folder', 'source'),
  [
    ('core', 'from score_jax.model import decoder'),
    ('core', 'from score_jax import objective'),
    ('core', 'import score_jax.main'),
    ('core', 'def f():\n  from score_jax.runs import metrics'),
    ('model', 'from score_jax.tasks.math import grade'),
    ('model', 'from score_jax.formats import gguf'),
    ('tasks', 'import score_jax.runs.metrics'),
    ('tasks', 'import jax.numpy as jnp'),
    ('tasks', 'from flax import struct'),
    ('runs', 'from score_jax.model import decoder'),
    ('analysis', 'from score_jax.rollout.sampler import Sampler'),
    ('analysis', 'import jax.numpy as jnp'),
    ('objective', 'from score_jax.model import decoder'),
    ('objective', 'from etils import epath'),
    ('training', 'from score_jax.evaluation import protocol'),
    ('training', 'from absl import flags'),
    ('planning', 'from score_jax import main'),
    ('replication', 'from score_jax.planning import memory'),
    ('programs', 'from score_jax import main'),
    ('programs', 'import torch'),
    ('programs', 'import tensorflow.io'),
    ('programs', 'from . import main'),
  ],
)
def test_layers_can_fail(folder, source):
  assert len(layer_complaints(source, folder)) == 1


@pytest.mark.parametrize(
  ('folder', 'source'),
  [
    ('core', 'import jax\nfrom score_jax.core import types'),
    ('model', 'from score_jax.core import types'),
    ('tasks', 'import tensorflow_datasets as tfds\nimport jaxtyping'),
    ('analysis', 'import numpy as np\nfrom score_jax.analysis import voting'),
    ('training', 'from score_jax.objective import loss\nfrom absl import logging'),
    ('cli', 'from score_jax.setup import checks\nfrom absl import flags'),
    ('programs', 'from score_jax.training import train\nfrom score_jax import __version__'),
  ],
)
def test_layers_let_pass(folder, source):
  assert not layer_complaints(source, folder)


def test_the_root_can_fail():
  assert root_complaints('def f():\n  pass\n')
  assert root_complaints('"""As `__main__`."""\nif __name__ == "main":\n  f()\n')
  assert not root_complaints("if __name__ == '__main__':\n  f()\n")


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
