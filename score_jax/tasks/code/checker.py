"""Grades programs against tests: the part of the code checker that lives in the trainer.

    checker.grade([(tests, program), ...]) -> [Verdict, ...]        in order, one each, always

The judges are worker processes (judge.py), each with a sandbox of its own; this side never parses,
imports or runs a program.
"""

import ast
import json
import os
from collections.abc import Sequence

from score_jax.tasks import base
from score_jax.tasks.code import isolation, judge, secret
from score_jax.tasks.workers.pool import WorkerPool

_MIN_MEMORY_BYTES = 1 << 27
# A judge starts its sandbox within an item's time; once that is done it keeps to the real limit.
_START_S = 60.0


class CodeChecker:
  """Runs programs in a sandbox and says whether they pass.

  Attributes:
    num_workers: judges at a time, each with one candidate at a time.
    timeout_s: wall-clock seconds for a program and all calls of its functions.
    memory_bytes: address space of a candidate.
    allow_unsandboxed: whether to run programs on a machine that cannot confine them.
    cache: folder of the secret that random tests are seeded with; see secret.py.
  """

  def __init__(
    self,
    num_workers: int = 2,
    timeout_s: float = 5.0,
    memory_bytes: int = 1 << 29,
    allow_unsandboxed: bool = False,
    cache: str | os.PathLike[str] = '',
  ):
    if memory_bytes < _MIN_MEMORY_BYTES:
      raise ValueError(
        f'memory_bytes={memory_bytes:,}, but Python alone needs about {_MIN_MEMORY_BYTES:,}'
      )
    self.num_workers = num_workers
    self.timeout_s = timeout_s
    self.memory_bytes = memory_bytes
    self.allow_unsandboxed = allow_unsandboxed
    self.cache = cache
    self._secret: bytes | None = None
    self._settings = json.dumps([timeout_s, memory_bytes, allow_unsandboxed])
    self._pool = WorkerPool(
      'score_jax.tasks.code.judge:grade',
      num_workers=num_workers,
      timeout_s=timeout_s + _START_S,
      memory_bytes=max(1 << 30, memory_bytes),
      max_chars=1 << 30,
    )

  def grade(self, items: Sequence[tuple[str, str]]) -> list[base.Verdict]:
    """Grades every program. The judges start with the first call.

    Args:
      items: (tests, program): trusted Python source whose asserts must all hold, which calls what
        the program defines; and untrusted source.

    Returns:
      One verdict per item, in order, whatever a program holds. Reasons: 'correct'; 'wrong', an
      assert did not hold; 'no_answer', an empty program; 'too_long'; 'timeout'; 'error: memory';
      'error: exit', the process ended; 'error: killed by SIGSEGV' and the like; 'error: NAME', the
      program raised NAME; 'error: bad message', the program meddled with the protocol.

    Raises:
      ValueError: tests do not parse or have no assert: that is no program's fault; or the cache
        cannot be used.
      RuntimeError: this machine cannot confine programs, and `allow_unsandboxed` is False; or the
        judges do not start.
    """
    if not self.allow_unsandboxed:
      report = isolation.available()
      if not report.is_enough:
        raise RuntimeError(
          f'This machine gives no isolation to run untrusted programs in ({report}). See '
          'docs/sandbox.md for what to switch on, or pass allow_unsandboxed=True where the '
          'programs may do whatever this user may.'
        )
    if self._secret is None:
      self._secret = secret.read_secret(self.cache)
    verdicts: list[base.Verdict | None] = [_without_running(program) for _, program in items]
    waiting = [i for i, verdict in enumerate(verdicts) if verdict is None]
    graded = self._pool.grade(
      [(self._settings, *items[i], secret.make_seed(self._secret, items[i][1])) for i in waiting]
    )
    for i, verdict in zip(waiting, graded, strict=True):
      verdicts[i] = _verdict(i, verdict)
    return verdicts

  def close(self) -> None:
    """Ends all processes; grading again starts new ones."""
    self._pool.close()


def helpers(prompt: str, entry_point: str) -> str:
  """The definitions that a prompt gives beside the function to write.

  HumanEval's tests call three of them (`poly`, `encode_cyclic`, `encode_shift`). Put before the
  tests, they are the judge's own; a program could otherwise redefine them so that it passes.

  Args:
    prompt: trusted source: imports, definitions, and the function to write without its body.
    entry_point: the name of that function.

  Returns:
    Source, empty where there are no other definitions.

  Example:
    >>> helpers('import math\\ndef g(x):\\n  return 1\\ndef f(x):\\n  "Doc."\\n', 'f')
    'import math\\n\\ndef g(x):\\n    return 1'
  """
  tree = ast.parse(prompt)
  tree.body = [node for node in tree.body if getattr(node, 'name', None) != entry_point]
  return ast.unparse(tree)


def _without_running(program: str) -> base.Verdict | None:
  if len(program) > judge.MAX_PROGRAM_CHARS:
    return base.Verdict(0.0, 'too_long')
  return None if program.strip() else base.Verdict(0.0, 'no_answer')


def _verdict(index: int, verdict: base.Verdict) -> base.Verdict:
  """A judge's verdict; what is not the program's doing is raised.

  An exception of a program's own is its name alone, so that none can be mistaken for the judge's.
  """
  what, _, words = verdict.reason.removeprefix('error: ').partition(': ')
  if what == 'ValueError' and words:
    raise ValueError(f'item {index}: {words}')
  if what == 'RuntimeError' and words:
    raise RuntimeError(words)
  # The judge had no memory left for what the program made it hold.
  return base.Verdict(0.0, 'error: memory') if what == 'MemoryError' else verdict
