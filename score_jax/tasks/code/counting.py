"""Prepares tests: counts their asserts, and finds out which names the program has to define.

Each assert becomes

    __reached__()
    if CONDITION: __held__(3)
    else: __failed__()

so that neither an early end nor an exception that the tests catch can look like success. An
`assert True` says nothing and counts for nothing.
"""

import ast
import builtins
import functools
import symtable
import sys
from collections.abc import Callable, Iterator


class Failed(Exception):
  """An assert did not hold."""


class Count:
  """Which asserts ran, and how that ended.

  Attributes:
    num_reached: how often any assert was begun.
    num_held: how often one held.
    held: the numbers of those that did.
  """

  def __init__(self):
    self.num_reached = 0
    self.num_held = 0
    self.held: set[int] = set()

  def names(self) -> dict[str, Callable]:
    """What counted tests call."""
    return {'__reached__': self._reach, '__held__': self._hold, '__failed__': self._fail}

  def _reach(self) -> None:
    self.num_reached += 1

  def _hold(self, number: int) -> None:
    self.num_held += 1
    self.held.add(number)

  def _fail(self) -> None:
    raise Failed


class Tests:
  """Tests, ready to run.

  Attributes:
    code: compiled, with counted asserts.
    num_asserts: how many there are in the source, without those that say nothing.
    program_names: names that the program has to define.
    modules: names that stand for modules of the standard library.
  """

  def __init__(self, source: str):
    tree = ast.parse(source)
    self.program_names, self.modules = _free_names(source, tree)
    counter = _CountAsserts()
    tree = ast.fix_missing_locations(counter.visit(tree))
    self.num_asserts = counter.num_asserts
    self.code = compile(tree, 'tests.py', 'exec')


@functools.lru_cache(maxsize=256)
def prepare(source: str) -> Tests:
  """Compiles tests; the many programs of one problem share them.

  Args:
    source: trusted Python.

  Raises:
    ValueError: the source does not parse, or holds no assert that says something.
  """
  try:
    tests = Tests(source)
  except SyntaxError as error:
    raise ValueError(f'the tests do not parse: {error}') from error
  if not tests.num_asserts:
    raise ValueError(f'the tests have no assert: {source!r:.200}')
  return tests


class _CountAsserts(ast.NodeTransformer):
  num_asserts = 0

  def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
    reached, failed, held = ast.parse(
      f'__reached__()\n__failed__()\n__held__({self.num_asserts})'
    ).body
    if isinstance(node.test, ast.Constant):
      return [ast.Pass()] if node.test.value else [reached, failed]
    self.num_asserts += 1
    return [reached, ast.If(node.test, [held], [failed])]


def _free_names(source: str, tree: ast.Module) -> tuple[set[str], set[str]]:
  """(names for the program to define, names of modules) among those that tests do not define.

  A module is what is only ever followed by a dot. A built-in function is Python's own, so that a
  program cannot bring its own `set` or `abs` to the comparison; only where tests ask for nothing
  else is the one that they call the program's (MBPP has a task to write `sum`).
  """
  top = symtable.symtable(source, 'tests.py', 'exec')
  used, defined = set(), set()
  for table in _tables(top):
    for symbol in table.get_symbols():
      if table is top or symbol.is_global():
        if symbol.is_referenced():
          used.add(symbol.get_name())
        if symbol.is_assigned() or symbol.is_imported():
          defined.add(symbol.get_name())
  dotted, called = set(), set()
  for node in ast.walk(tree):
    match node:
      case ast.Attribute(value=ast.Name(id=name)):
        dotted.add(name)
      case ast.Call(func=ast.Name(id=name)):
        called.add(name)
  free = used - defined
  modules = free & dotted & sys.stdlib_module_names - called
  own = {name for name in free - modules if not hasattr(builtins, name)}
  builtin = free & called - own
  return own or (builtin if len(builtin) == 1 else set()), modules


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
  yield table
  for child in table.get_children():
    yield from _tables(child)
