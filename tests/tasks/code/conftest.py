"""A checker of programs, where this machine can confine one."""

import pytest

from score_jax.tasks.code import checker, isolation


@pytest.fixture(scope='module')
def enough():
  report = isolation.available()
  if not report.is_enough:
    pytest.skip(f'this machine confines no program: {report}')


@pytest.fixture(scope='module')
def grader(enough, data_cache):
  one = checker.CodeChecker(timeout_s=20.0, cache=data_cache)
  yield one
  one.close()
