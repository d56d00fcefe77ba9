"""The judge's random stream: no program knows it, and the same program meets it again."""

import concurrent.futures

import pytest

from score_jax.tasks.code import checker, secret

# HumanEval 38 in small: a program that knows the draws passes without decoding.
TESTS = """
def encode(s):
  return s[1:] + s[:1]
def check(candidate):
  from random import randint, choice
  for _ in range(20):
    s = ''.join(choice('abcdefghijklmnopqrstuvwxyz') for _ in range(randint(10, 20)))
    assert candidate(encode(s)) == s
check(decode)
"""
# Replays the stream of whatever it finds that fits the first call.
REPLAY = """
import random
def stream(rng):
  while True:
    letters = 'abcdefghijklmnopqrstuvwxyz'
    yield ''.join(rng.choice(letters) for _ in range(rng.randint(10, 20)))
found = []
def decode(s):
  if not found:
    for rng in guesses():
      first = next(stream(rng))
      if first[1:] + first[:1] == s:
        found.append(stream(rng))
        return first
    return ''
  return next(found[0])
"""
ZERO = 'def guesses():\n  yield random.Random(0)\n'
SEARCH = """
import ctypes, gc, hashlib, hmac, os, sys
def seeds():
  yield from range(1000)
  yield from (os.getpid(), os.getppid(), None, '', b'')
  frame = sys._getframe()
  texts = list(os.environ) + list(os.environ.values()) + sys.argv
  while frame:
    texts += [v for v in [*frame.f_locals.values()] if isinstance(v, (str, list, tuple))]
    frame = frame.f_back
  for text in texts:
    for part in text if isinstance(text, (list, tuple)) else [text]:
      part = str(part).encode('utf-8', 'replace')
      yield part
      yield hash(part)
      for digest in (hashlib.sha256(part), hmac.new(b'', part, hashlib.sha256)):
        yield int(digest.hexdigest(), 16)
        yield digest.hexdigest()
  for thing in gc.get_objects():
    for value in gc.get_referents(thing):
      if type(value) is int and value.bit_length() > 60:
        yield value
      if isinstance(value, (str, bytes)) and len(value) in (32, 64):
        yield value
        try:
          yield int(value, 16)
        except ValueError:
          pass
  stack = ctypes.string_at(id(seeds) - 4096, 8192)
  for i in range(8160):
    yield int.from_bytes(stack[i : i + 32], 'little')
def guesses():
  rng = random.Random()
  rng.setstate(random.getstate())
  yield rng
  yield from (random.Random(seed) for seed in seeds())
"""


@pytest.fixture
def graders(enough, tmp_path):
  """A checker for each name of a cache."""
  made = []

  def make(cache):
    made.append(checker.CodeChecker(1, timeout_s=20.0, cache=tmp_path / cache))
    return made[-1]

  yield make
  for one in made:
    one.close()


def test_a_program_cannot_replay_what_the_tests_draw(graders, monkeypatch):
  grader = graders('cache')
  honest = 'decode = lambda s: s[-1:] + s[:-1]'
  items = [(TESTS, program) for program in (honest, REPLAY + ZERO, REPLAY + SEARCH)]
  assert [v.reason for v in grader.grade(items)] == ['correct', 'wrong', 'wrong']
  # With a seed that can be guessed, or found, both pass: they do what they say.
  monkeypatch.setattr(secret, 'make_seed', lambda *_: '0')
  assert [v.reason for v in grader.grade(items)] == ['correct'] * 3


def test_the_same_program_meets_the_same_draws_again_and_another_program_others(graders):
  tests = 'import random\nassert f() == (random.random() < 0.5)'
  items = [(tests, f'f = lambda: True  # {i}') for i in range(40)]
  # What a program draws itself is the same each time, too.
  own = 'import random\nlimit = {}\nf = lambda: random.random() < limit / 10'
  items += [('assert f()', own.format(i)) for i in range(1, 10)]
  verdicts, again, elsewhere = (graders(name).grade(items) for name in ('a', 'a', 'b'))
  assert verdicts == again and verdicts[40:] == elsewhere[40:]
  assert verdicts[:40] != elsewhere[:40]
  assert 5 < sum(verdict.reward for verdict in verdicts[:40]) < 35


def test_the_secret_stays_and_is_one_for_all_that_start_at_once(tmp_path):
  with concurrent.futures.ThreadPoolExecutor(8) as threads:
    found = set(threads.map(lambda _: secret.read_secret(tmp_path / 'a'), range(32)))
  assert found == {secret.read_secret(tmp_path / 'a')} != {secret.read_secret(tmp_path / 'b')}
  assert len(found.pop()) == 32
  assert [path.name for path in (tmp_path / 'a').iterdir()] == ['judge_secret']


def test_a_secret_that_cannot_be_used_is_said_to_be_one(tmp_path):
  (tmp_path / 'judge_secret').write_text('0x')
  with pytest.raises(ValueError, match='judge_secret holds no secret of 32 bytes.*delete it'):
    secret.read_secret(tmp_path)
  with pytest.raises(ValueError, match='neither read nor written.*set --config.data.cache'):
    secret.read_secret(tmp_path / 'judge_secret')


def test_every_character_of_a_program_counts():
  programs = ['f = 1', 'f = 1\n', 'f = "\ud800"', 'f = "\ud801"', '']
  assert len({secret.make_seed(b'a', program) for program in programs}) == len(programs)
