"""Plain values as JSON and back, so that nothing of a candidate's own making reaches the judge.

None, booleans, text, floats and integers of up to 64 bits stand for themselves; everything else is
a list that begins with its kind:

    [1, (2.5, 'a')]   ->   ["list", 1, ["tuple", 2.5, "a"]]

What is built on the judge's side is of Python's own types, exactly: an instance of a subclass
arrives as the type that it extends (a named tuple as a tuple), so its `__eq__` stays behind. Any
other object stays where it is, and a reference to it travels: ["object", 7]. An iterator arrives
as an iterator over all that it would give. Both sides keep to the same limits.
"""

import decimal
import fractions
import itertools
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from typing import Any

MAX_DEPTH = 100
MAX_NODES = 200_000
MAX_CHARS = 2_000_000  # of all texts and integers of a value together

_NAMED = {
  t.__name__: t
  for t in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type(None))
}


class TooLarge(ValueError):
  """A value has more parts, more text or deeper nesting than a message may have."""


class BadValue(ValueError):
  """A message is not what `encode` would have written."""


def encode(value: Any, refer: Callable[[Any], Any]) -> Any:
  """A value as JSON.

  Args:
    value: any object.
    refer: an object that is no plain value -> an integer or a name that stands for it.

  Returns:
    None, a bool, int, float or str, or a list of such.

  Raises:
    TooLarge: see the limits above; an object that contains itself is too deep.

  Example:
    >>> encode([1, (2.5, 'a')], id)
    ['list', 1, ['tuple', 2.5, 'a']]
  """
  return _Encoder(refer).encode(value, 0)


def decode(message: Any, refer: Callable[[Any], Any]) -> Any:
  """The value of a message.

  Args:
    message: what `encode` made, or anything else that JSON can hold.
    refer: what stands for an object -> that object, or something in its place.

  Returns:
    The value.

  Raises:
    BadValue: the message is not a value.

  Example:
    >>> decode(['tuple', 1, ['set', 2]], None)
    (1, {2})
  """
  try:
    return _decode(message, refer, 0)
  except (TypeError, ValueError, LookupError, ArithmeticError) as error:
    raise BadValue(f'no plain value: {error}') from error


class _Encoder:
  """One call of `encode`, with what it has used up."""

  def __init__(self, refer: Callable[[Any], Any]):
    self.refer = refer
    self.num_nodes = 0
    self.num_chars = 0

  def encode(self, value: Any, depth: int) -> Any:
    self._spend(1, 0, depth)
    if value is None or value is True or value is False:
      return value
    for kind in type(value).__mro__:
      if kind in _WRITERS:
        return _WRITERS[kind](self, value, depth + 1)
    if isinstance(value, type):
      return ['type', value.__name__] if value in _NAMED.values() else self._refer(value)
    if isinstance(value, KeysView) and not isinstance(value, Iterator):
      return ['keys', *self._all(value, depth + 1)]
    if isinstance(value, ItemsView) and not isinstance(value, Iterator):
      return ['items', *self._all((part for pair in value for part in pair), depth + 1)]
    if isinstance(value, (Iterator, ValuesView)):
      some = itertools.islice(value, MAX_NODES + 1)
      return ['iterator', *self._all(some, depth + 1)]
    return self._refer(value)

  def _refer(self, value: Any) -> list:
    return ['object', self.refer(value)]

  def _all(self, values: Any, depth: int) -> list:
    return [self.encode(value, depth) for value in values]

  def _spend(self, num_nodes: int, num_chars: int, depth: int) -> None:
    self.num_nodes += num_nodes
    self.num_chars += num_chars
    if self.num_nodes > MAX_NODES:
      raise TooLarge(f'more than {MAX_NODES:,} parts')
    if self.num_chars > MAX_CHARS:
      raise TooLarge(f'more than {MAX_CHARS:,} characters')
    if depth > MAX_DEPTH:
      raise TooLarge(f'nested more than {MAX_DEPTH} deep')

  def text(self, value: str, depth: int) -> str:
    self._spend(0, str.__len__(value), depth)
    return str.__str__(value)

  def integer(self, value: int, depth: int) -> Any:
    self._spend(0, int.bit_length(value) // 4, depth)
    value = int.__int__(value)
    return value if -(1 << 63) <= value < 1 << 63 else ['integer', hex(value)]

  def octets(self, value: Any, depth: int) -> list:
    self._spend(0, 2 * len(value), depth)
    return ['bytes' if isinstance(value, bytes) else 'bytearray', bytes(value).hex()]


def _sequence(kind: type) -> Callable[[_Encoder, Any, int], list]:
  return lambda encoder, value, depth: [
    kind.__name__,
    *(encoder.encode(part, depth) for part in kind.__iter__(value)),
  ]


def _mapping(name: str) -> Callable[[_Encoder, Any, int], list]:
  return lambda encoder, value, depth: [
    name,
    *(encoder.encode(part, depth) for pair in dict.items(value) for part in pair),
  ]


# By the first class of the value's ancestry that is here.
_WRITERS: dict[type, Callable[[_Encoder, Any, int], Any]] = {
  str: _Encoder.text,
  int: _Encoder.integer,
  float: lambda encoder, value, depth: float.__float__(value),
  complex: lambda encoder, value, depth: ['complex', value.real, value.imag],
  bytes: _Encoder.octets,
  bytearray: _Encoder.octets,
  list: _sequence(list),
  tuple: _sequence(tuple),
  set: _sequence(set),
  frozenset: _sequence(frozenset),
  deque: _sequence(deque),
  Counter: _mapping('Counter'),
  OrderedDict: _mapping('OrderedDict'),
  defaultdict: _mapping('dict'),
  dict: _mapping('dict'),
  range: lambda encoder, value, depth: [
    'range',
    *(encoder.encode(part, depth) for part in (value.start, value.stop, value.step)),
  ],
  fractions.Fraction: lambda encoder, value, depth: [
    'Fraction',
    *(encoder.encode(part, depth) for part in (value.numerator, value.denominator)),
  ],
  decimal.Decimal: lambda encoder, value, depth: ['Decimal', encoder.text(str(value), depth)],
}


def _pairs(kind: type) -> Callable[..., Any]:
  return lambda *parts: kind(zip(parts[::2], parts[1::2], strict=True))


# What makes a value of its decoded parts.
_READERS: dict[str, Callable[..., Any]] = {
  'list': lambda *parts: list(parts),
  'tuple': lambda *parts: parts,
  'set': lambda *parts: set(parts),
  'frozenset': lambda *parts: frozenset(parts),
  'deque': lambda *parts: deque(parts),
  'iterator': lambda *parts: iter(parts),
  # A view keeps its order, and is equal to a set all the same.
  'keys': lambda *parts: dict.fromkeys(parts).keys(),
  'items': lambda *parts: _pairs(dict)(*parts).items(),
  'dict': _pairs(dict),
  'OrderedDict': _pairs(OrderedDict),
  'Counter': lambda *parts: Counter(_pairs(dict)(*parts)),
  'integer': lambda text: int(text, 16),
  'complex': complex,
  'bytes': bytes.fromhex,
  'bytearray': bytearray.fromhex,
  'range': range,
  'Fraction': fractions.Fraction,
  'Decimal': decimal.Decimal,
  'type': _NAMED.__getitem__,
}


def _decode(message: Any, refer: Callable[[Any], Any], depth: int) -> Any:
  if message is None or isinstance(message, (bool, int, float, str)):
    return message
  if not isinstance(message, list) or not message or depth > MAX_DEPTH:
    raise BadValue(f'{type(message).__name__} at depth {depth}')
  kind, *parts = message
  if kind == 'object':
    (name,) = parts
    return refer(name)
  if kind not in _READERS:
    raise BadValue(f'kind {kind!r:.40}')
  return _READERS[kind](*(_decode(part, refer, depth + 1) for part in parts))
