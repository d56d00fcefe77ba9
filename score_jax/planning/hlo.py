"""Reads the text of a compiled program: instructions, who calls whom, and how often each runs.

A loop's body stands in the text once. It runs as often as `known_trip_count` says, or until the
loop's counter, from 0 on, has reached the constant that it is compared with: for a loop that may
end early, such as decoding, that is the most.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator

_ARRAY = re.compile(r'([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?')
_COMPUTATION = re.compile(r'(ENTRY )?%([^\s(]+) \(.*\{$')
_INSTRUCTION = re.compile(r'\s+(ROOT )?%\S+ = ')
_CALLED = re.compile(
  r'(calls|to_apply|condition|body|true_computation|false_computation)=%([^\s,)]+)'
)


@dataclasses.dataclass(frozen=True)
class Array:
  """An array of an instruction's result.

  Attributes:
    dtype: as in the text, 'bf16'.
    dims: its shape.
    is_in_hbm: whether it lies in the chip's main memory.
  """

  dtype: str
  dims: tuple[int, ...]
  is_in_hbm: bool = True

  @property
  def size(self) -> int:
    """Bytes, without padding."""
    digits = re.search(r'\d+', self.dtype)
    bits = 8 if self.dtype == 'pred' else int(digits[0]) if digits else 0
    return math.prod(self.dims) * bits // 8

  @property
  def hbm(self) -> int:
    """Bytes in main memory."""
    return self.size if self.is_in_hbm else 0


def arrays_of(shape: str) -> tuple[Array, ...]:
  """Reads a shape, a tuple's from left to right.

  Example:
    >>> arrays_of('(f32[2,3]{1,0:T(8,128)S(1)}, pred[])')[0]
    Array(dtype='f32', dims=(2, 3), is_in_hbm=False)
  """
  found = []
  for dtype, dims, layout in _ARRAY.findall(shape):
    space = re.search(r'S\((\d+)\)', layout)
    dims = tuple(int(x) for x in dims.split(',') if x)
    found.append(Array(dtype, dims, space is None or space[1] == '0'))
  return tuple(found)


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of the program.

  Attributes:
    name: its own.
    opcode: 'fusion', 'all-gather', ...
    arrays: its result.
    operands: names of the instructions it reads.
    argument: what stands between its brackets.
    attributes: what follows.
    is_root: whether it is its computation's result.
  """

  name: str
  opcode: str
  arrays: tuple[Array, ...]
  operands: tuple[str, ...]
  argument: str
  attributes: str
  is_root: bool

  def attribute(self, pattern: str) -> str | None:
    """The first group of a pattern in the attributes."""
    found = re.search(pattern, self.attributes)
    return found[1] if found else None

  @property
  def source(self) -> str:
    """Where in the traced program it comes from, `op_name`."""
    return self.attribute(r'op_name="([^"]*)"') or ''

  def called(self, role: str) -> list[str]:
    """Names of the computations that it calls as 'calls', 'body', 'condition', 'to_apply', ..."""
    if role == 'branches':
      names = self.attribute(r'branch_computations=\{([^}]*)\}') or ''
      one = [*self.called('true_computation'), *self.called('false_computation')]
      return re.findall(r'%([^\s,]+)', names) + one
    return [name for key, name in _CALLED.findall(self.attributes) if key == role]


@dataclasses.dataclass(frozen=True)
class Computation:
  """A function of the program, instructions by name in order."""

  name: str
  instructions: dict[str, Instruction]

  @functools.cached_property
  def root(self) -> Instruction:
    """Its result."""
    return next(x for x in self.instructions.values() if x.is_root)

  def moved_from(self, name: str) -> Instruction:
    """The instruction that made a value, before it was copied."""
    x = self.instructions[name]
    return self.moved_from(x.operands[0]) if x.opcode in ('copy', 'bitcast') else x

  @functools.cached_property
  def parameters(self) -> dict[int, Instruction]:
    """Its arguments by number."""
    found = (x for x in self.instructions.values() if x.opcode == 'parameter')
    return {int(x.argument): x for x in found}

  @functools.cached_property
  def users(self) -> dict[str, list[Instruction]]:
    """Who reads an instruction."""
    users = {name: [] for name in self.instructions}
    for x in self.instructions.values():
      for name in dict.fromkeys(x.operands):
        users[name].append(x)
    return users


@dataclasses.dataclass(frozen=True)
class Module:
  """A program: its computations by name, and the one that it starts with."""

  computations: dict[str, Computation]
  entry: str

  def executed(
    self, seconds: Callable[[Instruction, Computation], float], most: int | None = None
  ) -> Iterator[tuple[Instruction, Computation, int]]:
    """Walks what runs, loops and calls entered, fusions not.

    Args:
      seconds: of an instruction of a computation; of a choice the branch that takes longest is
        walked.
      most: how often a loop runs that may end early; None for as often as it may.

    Yields:
      (instruction, its computation, how often it runs).
    """
    yield from self._executed(self.entry, 1, seconds, most)

  def _executed(self, name: str, times: int, seconds, most):
    computation = self.computations[name]

    def total(branch):
      return sum(n * seconds(x, place) for x, place, n in self._executed(branch, 1, seconds, most))

    for x in computation.instructions.values():
      yield x, computation, times
      inner = {}
      if x.opcode == 'conditional':
        inner = {max(x.called('branches'), key=total): times}
      if x.opcode == 'while':
        trips = self.trips(x) or 1
        trips = min(trips, most) if most is not None and self.may_end_early(x) else trips
        inner = {name: times * trips for name in x.called('body')}
        inner |= {name: times * (trips + 1) for name in x.called('condition')}
      elif x.opcode == 'call':
        inner = {name: times for name in x.called('to_apply')}
      elif x.opcode == 'async-start':
        inner = {name: times for name in x.called('calls')}
      for name, count in inner.items():
        yield from self._executed(name, count, seconds, most)

  def may_end_early(self, loop: Instruction) -> bool:
    """Whether more than a counter decides how often a loop's body runs."""
    condition = self.computations[loop.called('condition')[0]]
    return condition.root.opcode != 'compare'

  def trips(self, loop: Instruction) -> int | None:
    """How often a loop's body runs, at most; None where the text does not say."""
    known = loop.attribute(r'"known_trip_count":\{"n":"(\d+)"')
    if known:
      return int(known)
    condition = self.computations[loop.called('condition')[0]]
    limits = []
    for x in condition.instructions.values():
      if x.opcode == 'compare' and 'direction=LT' in x.attributes:
        counter, limit = (condition.moved_from(name) for name in x.operands)
        step = self._step(loop, counter)
        if _is_number(limit) and step:
          limits.append(-(-int(limit.argument) // step))
    return min(limits, default=None)

  def _step(self, loop: Instruction, counter: Instruction) -> int | None:
    """What a loop's body adds to its counter; 1 where the text does not show it.

    None for what grows by a number that is made: that is no counter.
    """
    body = self.computations[loop.called('body')[0]]
    place = counter.attribute(r'index=(\d+)')
    if place is None or body.root.opcode != 'tuple':
      return 1
    added = body.moved_from(body.root.operands[int(place)])
    if added.opcode != 'add':
      return 1
    terms = [body.moved_from(name) for name in added.operands]
    return next((int(x.argument) for x in terms if _is_number(x)), None)

  def inside(self, x: Instruction) -> Iterator[tuple[Instruction, Computation]]:
    """Walks what a fusion is made of, fusions in it too; nothing for another instruction."""
    if x.opcode == 'fusion':
      computation = self.computations[x.called('calls')[0]]
      for part in computation.instructions.values():
        yield part, computation
        yield from self.inside(part)


def _is_number(x: Instruction) -> bool:
  return x.opcode == 'constant' and x.argument.isdigit()


def parse(text: str) -> Module:
  """Reads a program.

  Args:
    text: of `jax.stages.Compiled.as_text`.

  Returns:
    The program.

  Raises:
    ValueError: if there is no program in the text.
  """
  computations, entry, name = {}, None, None
  for line in text.splitlines():
    head = _COMPUTATION.match(line)
    if head:
      name, lines = head[2], []
      entry = name if head[1] else entry
    elif line == '}' and name:
      found = (_instruction(x.strip()) for x in lines)
      computations[name], name = Computation(name, {x.name: x for x in found}), None
    elif name and _INSTRUCTION.match(line):
      lines.append(line)
    elif name and lines:  # what a kernel says of itself has lines of its own
      lines[-1] += line
  if entry is None:
    raise ValueError(f'no ENTRY in the {len(text)} characters of a compiled program')
  return Module(computations, entry)


def _instruction(line: str) -> Instruction:
  is_root = line.startswith('ROOT ')
  name, rest = line.removeprefix('ROOT ').split(' = ', 1)
  end = _closing(rest, 0) + 1 if rest.startswith('(') else rest.index(' ')
  shape, rest = rest[:end], rest[end:].lstrip()
  opened = rest.index('(')
  closed = _closing(rest, opened)
  argument = rest[opened + 1 : closed]
  operands = tuple(re.findall(r'%([^\s,()]+)', argument))
  opcode, attributes = rest[:opened], rest[closed + 1 :]
  return Instruction(
    name.lstrip('%'), opcode, arrays_of(shape), operands, argument, attributes, is_root
  )


def _closing(text: str, start: int) -> int:
  """Where the bracket that opens at `start` is closed."""
  depth = 0
  for found in re.compile(r'[()]').finditer(text, start):
    depth += 1 if found[0] == '(' else -1
    if depth == 0:
      return found.start()
  raise ValueError(f'a bracket is not closed: {text[start : start + 200]}')
