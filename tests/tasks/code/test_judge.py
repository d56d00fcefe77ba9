"""Judging programs: what an honest one may do, and what does not pass."""

import pytest

from score_jax.tasks.code import checker

pytestmark = pytest.mark.usefixtures('enough')


@pytest.fixture(scope='module')
def impatient(enough):
  one = checker.CodeChecker(num_workers=1, timeout_s=2.0)
  yield one
  one.close()


def grade(grader, tests, program):
  (verdict,) = grader.grade([(tests, program)])
  return verdict.reason


@pytest.mark.parametrize(
  ('tests', 'program'),
  [
    ('assert f(1) == 2', 'f = lambda x: x + 1'),
    ('assert f(2), "said"', 'def f(x): return x > 1'),
    ('assert sum(10, 15) == 6', 'def sum(a, b): return 6'),  # the only name there is
    ('assert math.isclose(f(), 0.5)', 'f = lambda: 0.5 + 1e-12'),
    ('assert set(f()) == {1, 2}', 'f = lambda: [2, 1, 1]'),
    ('assert f() == {"a": (1, [2.5, None])}', 'f = lambda: {"a": (1, [2.5, None])}'),
    ('assert list(f(3)) == [0, 1, 2]', 'def f(n):\n  for i in range(n): yield i'),
    ('assert f(int, [1, "a"]) == [1]', 'f = lambda t, xs: [x for x in xs if type(x) is t]'),
    ('assert f(1, b=2) == 3', 'def f(a, b): return a + b'),
    (
      'p = P(1)\np.x = 5\nassert f(p) == 5 and p.x == 5',
      'class P:\n  def __init__(s, x): s.x = x\ndef f(p): return p.x',
    ),
    ('for i in range(50):\n  assert f(i) == -i', 'f = lambda i: -i'),
    (
      'try:\n  f(-1)\n  assert False\nexcept ValueError:\n  pass\nassert f(1) == 1',
      'def f(x):\n  if x < 0: raise ValueError\n  return x',
    ),
    ('def check(candidate):\n  assert candidate([3]) == 3\n  assert True\ncheck(f)', 'f = max'),
    (
      'assert f() == (1, 2)',
      'from collections import namedtuple\nf = lambda: namedtuple("P", "a b")(1, 2)',
    ),
    ('def g(f): return f + 1\nassert g(f(1)) == 3', 'f = lambda x: x + 1'),
    ('class T:\n  f = 1\n  def g(self): return f(2)\nassert T().g() == 3', 'f = lambda x: x + 1'),
    ('assert [f(f) for f in [abs] if 0] == [] and f(1) == 2', 'f = lambda x: x + 1'),
    ('assert f(g) == 3', 'g = lambda: 3\nf = lambda h: h()'),
    (
      'assert f() == 1',
      'import dataclasses\n@dataclasses.dataclass\nclass A:\n  x: "int" = 1\nf = lambda: A().x',
    ),
    (
      'assert f() == "temporary"',
      'import os\ndef f():\n  if os.getcwd() != "/tmp": return "temporary"\n'
      '  open("a", "w").write("temporary")\n  return open("/tmp/a").read()',
    ),
  ],
)
def test_what_an_honest_program_may_do(grader, tests, program):
  assert grade(grader, tests, program) == 'correct'


@pytest.mark.parametrize(
  ('tests', 'program', 'reason'),
  [
    ('assert f() == 1', 'f = lambda: 2', 'wrong'),
    ('assert f() < 5', 'f = lambda: None', 'wrong'),
    # An object is neither equal nor unequal to anything, nor true.
    ('assert f() != 1', 'f = lambda: object()', 'wrong'),
    ('assert f()', 'f = lambda: object()', 'wrong'),
    ('assert not f()', 'f = lambda: object()', 'wrong'),
    ('assert f', 'f = 1', 'wrong'),
    ('assert f() in [1]', 'f = lambda: object()', 'wrong'),
    # The tests' own functions are not the program's to replace.
    ('assert set(f()) == {1}', 'set = lambda x: {1}\nf = lambda: 2', 'wrong'),
    ('assert abs(f() - 1) < 1e-6', 'abs = lambda x: 0\nf = lambda: 2', 'wrong'),
    (
      'assert math.isclose(f(), 1)',
      'class math: isclose = lambda *a: True\nf = lambda: 2',
      'wrong',
    ),
    ('def g(x): return x\nassert g(f()) == 1', 'g = lambda x: 1\nf = lambda: 2', 'wrong'),
    # Nor does an early or a muffled end look like success.
    (
      'for x in map(f, [1, 2]):\n  assert x == 1\nassert f(3) == 1',
      'def f(x):\n  if x > 1: raise StopIteration\n  return 1',
      'error: StopIteration',
    ),
    (
      'for i in range(2):\n  try:\n    assert f(i) == 1\n  except Exception: pass',
      'f = lambda i: (1, object())[i]',
      'wrong',
    ),
    (
      'for i in range(2):\n  try:\n    assert f(i) == 1\n  except Exception: pass',
      'f = lambda i: [1][i]',
      'wrong',
    ),
    ('try:\n  assert f() == 1\nexcept Exception: pass', 'f = lambda: 2', 'wrong'),
    ('try:\n  assert f() == 1\nexcept: pass', 'import os\nf = lambda: os._exit(0)', 'error: exit'),
    ('if f():\n  assert f() == 1\nassert f() == f()', 'f = lambda: 0', 'error: asserts left out'),
    ('for x in f():\n  assert x == 1', 'f = lambda: []', 'error: asserts left out'),
    ('assert 1 == 1', 'f = 1', 'error: asserts left out'),
    # Values that are too much for the one who compares.
    ('assert sum(f()) == 1', 'f = lambda: range(10 ** 15)', 'timeout'),
    ('assert list(f()) == [1]', 'f = lambda: range(10 ** 15)', 'error: memory'),
  ],
)
def test_what_does_not_pass(impatient, tests, program, reason):
  assert grade(impatient, tests, program) == reason
