"""The judge: runs the tests' asserts here, and the program's functions in the sandbox.

The tests are trusted Python. A name that they use and do not define is a function (or class) of the
program, and calling it sends the arguments to the candidate and brings a plain value back. What is
expected, and the comparison, never leave this process.

A program passes when the tests ran to their end, every `assert` in their source was reached and
held each time (counting.py), and the program was called at all.
"""

import builtins
import functools
import importlib
import json
import random
import signal
from typing import Any

from score_jax.tasks.code import counting, sandbox, values

MAX_PROGRAM_CHARS = 100_000
# Seconds that the judge may take beside the candidate: for long comparisons, and to clear up.
SPARE_S = 2.0
# A sandbox that was killed from outside says nothing of the program in it.
_MAX_TRIES = 3

# Exceptions of a program that its tests may catch by name. Not those that mean something to the
# interpreter itself (StopIteration would end a loop of the tests early, and quietly), nor those
# that take more than a message.
_CATCHABLE = {
  kind.__name__: kind
  for kind in vars(builtins).values()
  if isinstance(kind, type)
  and issubclass(kind, Exception)
  and not issubclass(
    kind,
    (AssertionError, AttributeError, StopIteration, StopAsyncIteration, Warning)
    + (UnicodeError, BaseExceptionGroup),
  )
}


class ProgramError(Exception):
  """The program raised an exception; the message is the name of its class."""


class NotPlain(Exception):
  """A test looked into an object of the program's own, whose answer would prove nothing."""


class Remote:
  """A function, a class or an object of the program, which stays with the candidate.

  Calls, attributes and assignments to them go there; a comparison raises NotPlain, since `__eq__`
  of an object that the program made would be the judged judging.
  """

  def __init__(self, candidate: sandbox.Candidate, reference: int | str):
    object.__setattr__(self, '_candidate', candidate)
    object.__setattr__(self, '_reference', reference)

  def __call__(self, *arguments, **keywords):
    return _ask(self._candidate, 'call', self, list(arguments), keywords)

  def __getattr__(self, name: str):
    if name.startswith('__'):
      raise AttributeError(name)
    return _ask(self._candidate, 'get', self, name)

  def __setattr__(self, name: str, value) -> None:
    _ask(self._candidate, 'set', self, name, value)

  def _refuse(self, *_):
    raise NotPlain

  __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _refuse
  __bool__ = __len__ = __iter__ = __contains__ = __getitem__ = __index__ = _refuse
  __int__ = __float__ = __complex__ = __str__ = __repr__ = __format__ = _refuse
  __reduce_ex__ = _refuse


def grade(settings: str, tests: str, program: str, seed: str) -> tuple[float, str]:
  """Says whether a program passes its tests; a worker's function (score_jax.tasks.workers.pool).

  Args:
    settings: JSON list of timeout_s, memory_bytes and allow_unsandboxed.
    tests: trusted source.
    program: untrusted source.
    seed: of what the tests draw, in hexadecimal; from `secret.make_seed`.

  Returns:
    (reward, reason).

  Raises:
    ValueError: the tests do not parse, or have no assert.
    RuntimeError: this machine has no isolation, and that is not allowed.
  """
  timeout_s, memory_bytes, allow_unsandboxed = json.loads(settings)
  prepared = counting.prepare(tests)
  box = _sandbox(memory_bytes, int(timeout_s) + 1, allow_unsandboxed)
  words = ''
  for _ in range(_MAX_TRIES):
    box.warm()
    # From here on, tests that never end (a comparison of huge values) end this worker: the alarm
    # that the worker set for each item, brought forward, since the start is over.
    signal.setitimer(signal.ITIMER_REAL, timeout_s + SPARE_S)
    try:
      return judge(box, prepared, program, timeout_s, seed)
    except sandbox.SandboxDied as error:
      words = f'{error}. {box.close()[-500:]}'
  return 0.0, f'error: sandbox died: {words}'


def judge(
  box: sandbox.Sandbox, tests: counting.Tests, program: str, timeout_s: float, seed: str
) -> tuple[float, str]:
  """Runs prepared tests against a program.

  Args:
    box: a warm sandbox.
    tests: from `counting.prepare`.
    program: untrusted source.
    timeout_s: wall-clock seconds for the program and all calls of it.
    seed: of what the tests draw, in hexadecimal.

  Returns:
    (reward, reason).

  Raises:
    sandbox.SandboxDied: the sandbox was killed; nothing is known of the program.
  """
  # The same inputs each time, and none that the program can know: its process was never forked from
  # this one, which holds this program's seed and not the secret behind it.
  random.seed(int(seed, 16))
  with box.start(timeout_s) as candidate:
    count = counting.Count()
    reason = _run(candidate, tests, program, count)
    if reason == 'correct' and count.num_reached != count.num_held:
      reason = 'wrong'
    if reason == 'correct' and not (len(count.held) == tests.num_asserts and candidate.num_calls):
      reason = 'error: asserts left out'
    return (1.0 if reason == 'correct' else 0.0), reason


def _run(
  candidate: sandbox.Candidate, tests: counting.Tests, program: str, count: counting.Count
) -> str:
  """Loads the program and runs the tests to their end; returns 'correct' or what went wrong."""
  names = {
    'print': lambda *_, **__: None,
    '__name__': 'tests',
    **count.names(),
    **{name: importlib.import_module(name) for name in tests.modules},
    **{name: Remote(candidate, name) for name in tests.program_names},
  }
  try:
    _answer(candidate, candidate.request('load', program))
    exec(tests.code, names)
  except sandbox.Lost:
    return candidate.fault
  except ProgramError as error:
    return candidate.fault or _reason(error.args[0])
  except MemoryError:
    raise
  except Exception:
    # Of the tests, on what the program gave them: an assert, or `None < 5` in one.
    return candidate.fault or 'wrong'
  return candidate.fault or 'correct'


def _reason(exception: str) -> str:
  return {'MemoryError': 'error: memory', 'SystemExit': 'error: exit'}.get(
    exception, f'error: {exception}'
  )


def _ask(candidate: sandbox.Candidate, kind: str, *parts: Any) -> Any:
  def refer(value):
    if isinstance(value, Remote):
      return value._reference
    raise TypeError(f'the tests hand over a {type(value).__name__}, which is no plain value')

  return _answer(candidate, candidate.request(kind, *(values.encode(p, refer) for p in parts)))


def _answer(candidate: sandbox.Candidate, reply: Any) -> Any:
  """The value of a reply, or the exception that it tells of."""
  match reply:
    case ['value', message]:
      try:
        return values.decode(message, lambda reference: Remote(candidate, _checked(reference)))
      except values.BadValue:
        pass
    case ['raised', str(name)] if name.isidentifier() and name.isascii() and len(name) <= 60:
      kind = _CATCHABLE.get(name)
      raise type('Raised', (ProgramError, kind) if kind else (ProgramError,), {})(name)
  candidate.fault = 'error: bad message'
  raise sandbox.Lost(candidate.fault)


def _checked(reference: Any) -> int | str:
  if type(reference) not in (int, str):
    raise ValueError(f'{reference!r:.40} refers to nothing')
  return reference


@functools.lru_cache(maxsize=1)
def _sandbox(*settings) -> sandbox.Sandbox:
  return sandbox.Sandbox(*settings)
