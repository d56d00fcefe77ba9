"""Values that travel between judge and candidate."""

import collections
import decimal
import enum
import fractions
import json
import math

import pytest

from score_jax.tasks.code import values, wire


def there_and_back(value):
  message = values.encode(value, lambda other: f'a {type(other).__name__}')
  frame = memoryview(wire.pack(message))
  position = 0

  def read(size):
    nonlocal position
    position += min(size, 7)  # a socket may give less than was asked for
    return bytes(frame[position - min(size, 7) : position])

  return values.decode(wire.receive(read), lambda reference: ('refers to', reference))


@pytest.mark.parametrize(
  'value',
  [
    *(None, True, False, 0, -1, 2**63 - 1, 2**63, -(2**200), 0.1, -0.0, 1e308, math.inf),
    *('', 'a"\n\0é\U0001f600', '\ud800', b'', b'\0\xff', bytearray(b'a'), 2j, range(3, 9, 2)),
    *([], [1, [2, (3,)]], (), {1, 'a'}, frozenset({(1, 2)}), {'a': 1, 2: [None]}, {(): {}}),
    collections.deque([1, 2]),
    collections.Counter('aab'),
    collections.OrderedDict(b=1, a=2),
    fractions.Fraction(-1, 3),
    decimal.Decimal('1.10'),
    *(int, str, type(None)),
  ],
)
def test_plain_values_arrive_as_they_were(value):
  arrived = there_and_back(value)
  assert arrived == value and type(arrived) is type(value)
  assert repr(arrived) == repr(value)


class Colour(enum.IntEnum):
  RED = 3


class Liar(str):
  def __eq__(self, other):
    return True

  __hash__ = str.__hash__


Point = collections.namedtuple('Point', 'x y')


@pytest.mark.parametrize(
  ('value', 'plain'),
  [
    (Point(1, 2), (1, 2)),
    (Colour.RED, 3),
    (Liar('a'), 'a'),
    ([Liar('a')], ['a']),
    ({Liar('a'): Liar('b')}, {'a': 'b'}),
    (collections.defaultdict(int, a=1), {'a': 1}),
    (object(), ('refers to', 'a object')),
    (Liar, ('refers to', 'a type')),
    (len, ('refers to', 'a builtin_function_or_method')),
  ],
)
def test_other_values_arrive_as_plain_ones_or_stay(value, plain):
  arrived = there_and_back(value)
  assert arrived == plain and type(arrived) is type(plain)


def test_an_iterator_arrives_as_an_iterator():
  arrived = there_and_back(x * x for x in range(4))
  assert arrived != [0, 1, 4, 9]
  assert list(arrived) == [0, 1, 4, 9]
  assert math.isnan(there_and_back(math.nan))


def test_views_of_a_dict_keep_their_order():
  value = {'b': [1], 'a': [2]}
  keys, items = (
    values.decode(values.encode(view, None), None) for view in (value.keys(), value.items())
  )
  assert list(keys) == ['b', 'a'] and keys == {'a', 'b'}
  assert list(items) == [('b', [1]), ('a', [2])]


def endless():
  while True:
    yield 1


def deep(depth):
  value = []
  for _ in range(depth):
    value = [value]
  return value


itself = []


itself.append(itself)


@pytest.mark.parametrize(
  'value',
  [
    'x' * (values.MAX_CHARS + 1),
    b'x' * values.MAX_CHARS,
    1 << (5 * values.MAX_CHARS),
    [0] * (values.MAX_NODES + 1),
    endless(),
    deep(values.MAX_DEPTH + 1),
    itself,
  ],
  ids=['text', 'bytes', 'integer', 'list', 'endless', 'deep', 'itself'],
)
def test_what_is_too_large_does_not_travel(value):
  with pytest.raises(values.TooLarge):
    values.encode(value, id)


def test_limits_are_just_that():
  for value in ('x' * values.MAX_CHARS, [0] * (values.MAX_NODES - 1), deep(values.MAX_DEPTH - 1)):
    assert there_and_back(value) == value


@pytest.mark.parametrize(
  'message',
  [
    *({}, {'list': 1}, [], [1], [None], [[]], [['list']], ['nonsense'], ['object'], ['eval', '1']),
    *(['object', 1, 2], ['dict', 1], ['set', ['list']], ['integer', 'x'], ['integer', 5]),
    *(['bytes', 'x'], ['bytes'], ['range'], ['range', 'a'], ['complex', []], ['Fraction', 1, 0]),
    *(['Decimal', 'x'], ['type', 'object'], ['type', []], ['type', '__class__'], ['list', {}]),
    ['dict', ['dict'], 1],
    json.loads('[' * 300 + ']' * 300),
  ],
)
def test_what_no_encoder_wrote_is_refused(message):
  with pytest.raises(values.BadValue):
    values.decode(message, lambda reference: reference)
