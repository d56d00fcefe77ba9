"""Sandboxes that do not start, or confine nothing."""

import subprocess
import sys

import pytest

from score_jax.tasks import base
from score_jax.tasks.code import checker, isolation, sandbox

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='the layers are those of Linux')


def test_a_sandbox_that_does_not_start_is_no_programs_fault(monkeypatch):
  def start_zygote(connection, memory_bytes, cpu_s, log):
    process = subprocess.Popen([sys.executable, '-c', 'exit("last words")'], stderr=log)
    process.wait()
    return process

  monkeypatch.setattr(isolation, 'start_zygote', start_zygote)
  with pytest.raises(RuntimeError, match='(?s)the sandbox does not start.*last words') as raised:
    sandbox.Sandbox(1 << 28, 5, allow_unsandboxed=True).warm()
  # What a worker makes of that, the parent raises again.
  reason = f'error: RuntimeError: {raised.value}'[:200]
  grader = checker.CodeChecker(allow_unsandboxed=True)
  monkeypatch.setattr(grader._pool, 'grade', lambda items: [base.Verdict(0.0, reason)])
  with pytest.raises(RuntimeError, match='^the sandbox does not start'):
    grader.grade([('assert f() == 1', 'f = lambda: 1')])


def test_a_machine_that_confines_nothing_is_refused_by_the_judge_too(monkeypatch):
  monkeypatch.setattr(isolation.Report, 'is_enough', False)
  with pytest.raises(RuntimeError, match='the sandbox confines nothing: layers: limits'):
    sandbox.Sandbox(1 << 28, 5, allow_unsandboxed=False).warm()
  box = sandbox.Sandbox(1 << 28, 5, allow_unsandboxed=True)
  box.warm()
  box.close()
