"""What travels between judge and candidate, and the program in a model's text."""

import collections
import decimal
import enum
import fractions
import json
import math
import struct

import pytest

from score_jax.tasks.code import extract, seccomp, values, wire


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


@pytest.mark.parametrize(
  'frame',
  [
    b'\xff\xff\xff\xff',
    (1).to_bytes(4, 'big') + b'{',
    (5).to_bytes(4, 'big') + b'\x80\x04abc',
    (wire.MAX_NODES + 2).to_bytes(4, 'big') + b'[' * (wire.MAX_NODES + 2),
    (200_000).to_bytes(4, 'big') + b'[' * 200_000,
    (5000).to_bytes(4, 'big') + b'1' * 5000,
  ],
  ids=['size', 'syntax', 'pickle', 'parts', 'depth', 'digits'],
)
def test_bad_frames_are_refused(frame):
  position = 0

  def read(size):
    nonlocal position
    position += size
    return frame[position - size : position]

  with pytest.raises(wire.BadFrame):
    wire.receive(read)


def test_a_closed_connection_is_said_to_be_one():
  with pytest.raises(EOFError):
    wire.receive(lambda size: b'')
  with pytest.raises(wire.BadFrame):
    wire.pack('x' * wire.MAX_BYTES)


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


def run_filter(program, architecture, number, second_argument):
  """What a filter returns, by the rules of BPF."""
  data = struct.pack('IIQQQ', number, architecture, 0, 0, second_argument)
  instructions = list(struct.iter_unpack('HBBI', program))
  value, position = 0, 0
  while True:
    code, if_true, if_false, operand = instructions[position]
    position += 1
    if code == 0x20:
      (value,) = struct.unpack_from('I', data, operand)
    elif code == 0x15:
      position += if_true if value == operand else if_false
    else:
      assert code == 0x06
      return operand


ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050026


@pytest.mark.parametrize(
  ('machine', 'architecture', 'number', 'second_argument', 'action'),
  [
    ('x86_64', 0xC000003E, 0, 0, ALLOW),  # read
    ('x86_64', 0xC000003E, 439, 0, ALLOW),  # faccessat2, the last of the list
    ('x86_64', 0xC000003E, 41, 0, REFUSE),  # socket
    ('x86_64', 0xC000003E, 56, 0, REFUSE),  # clone
    ('x86_64', 0xC000003E, 59, 0, REFUSE),  # execve
    ('x86_64', 0xC000003E, 101, 0, REFUSE),  # ptrace
    ('x86_64', 0xC000003E, 62, 0, REFUSE),  # kill
    ('x86_64', 0xC000003E, 0x40000000, 0, REFUSE),  # read by its x32 number
    ('x86_64', 0x40000003, 0, 0, KILL),  # i386
    ('x86_64', 0xC000003E, 72, 3, ALLOW),  # fcntl, F_GETFL
    ('x86_64', 0xC000003E, 72, 8, REFUSE),  # fcntl, F_SETOWN
    ('x86_64', 0xC000003E, 16, 0x5401, ALLOW),  # ioctl, TCGETS
    ('x86_64', 0xC000003E, 16, 0x5412, REFUSE),  # ioctl, TIOCSTI
    ('aarch64', 0xC00000B7, 63, 0, ALLOW),  # read
    ('aarch64', 0xC00000B7, 198, 0, REFUSE),  # socket
    ('aarch64', 0xC00000B7, 220, 0, REFUSE),  # clone
    ('aarch64', 0xC000003E, 63, 0, KILL),
  ],
)
def test_the_filter_of_system_calls(machine, architecture, number, second_argument, action):
  program = seccomp.build_filter(machine)
  assert run_filter(program, architecture, number, second_argument) == action


def test_an_unknown_machine_has_no_filter():
  with pytest.raises(OSError, match="'riscv64'"):
    seccomp.build_filter('riscv64')


def test_views_of_a_dict_keep_their_order():
  value = {'b': [1], 'a': [2]}
  keys, items = (
    values.decode(values.encode(view, None), None) for view in (value.keys(), value.items())
  )
  assert list(keys) == ['b', 'a'] and keys == {'a', 'b'}
  assert list(items) == [('b', [1]), ('a', [2])]
