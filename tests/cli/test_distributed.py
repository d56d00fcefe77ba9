"""What the environment says of the processes."""

import subprocess

import pytest

from score_jax.cli import distributed

TWO = {'JAX_COORDINATOR_ADDRESS': 'host0:1234', 'JAX_NUM_PROCESSES': '2', 'JAX_PROCESS_ID': '1'}


@pytest.mark.parametrize('address', ['localhost', 'localhost:', 'localhost:abc', ':1234'])
def test_an_address_without_a_port_is_refused(address):
  """Of these jax makes an IndexError or a failure of its own."""
  assert distributed.numbers_of(TWO) == {'num_processes': 2, 'process_id': 1}
  message = f"JAX_COORDINATOR_ADDRESS='{address}' is not HOST:PORT, such as localhost:1234"
  with pytest.raises(ValueError, match=message):
    distributed.numbers_of(TWO | {'JAX_COORDINATOR_ADDRESS': address})


def test_the_number_of_a_process():
  assert distributed.process_id({}) is None
  assert distributed.process_id(TWO) == 1
  assert distributed.process_id(TWO | {'SCORE_PROCESS_ID': '00'}) == 0
  assert distributed.is_first_process({'SCORE_PROCESS_ID': '00'}, True)
  for text in (' 0', '0\n', '-1', '0.0', '\u0660', 'worker-0', '<html>404'):
    with pytest.raises(ValueError, match='SCORE_PROCESS_ID=.* must be a whole number'):
      distributed.is_first_process({'SCORE_PROCESS_ID': text}, True)


def test_the_first_process(monkeypatch):
  assert distributed.is_first_process({'JAX_PROCESS_ID': '1'}, False)
  assert [distributed.is_first_process({'SCORE_PROCESS_ID': i}, True) for i in ('0', '10')] == [
    True,
    False,
  ]
  with pytest.raises(ValueError, match='JAX_NUM_PROCESSES'):
    distributed.is_first_process({'JAX_PROCESS_ID': '1'}, True)
  # Where the environment does not say, another process asks jax; nothing here has an accelerator.
  answers = []

  def asked(command, **_):
    assert 'jax.distributed.initialize()' in command[-1]
    return subprocess.CompletedProcess(command, *answers.pop())

  monkeypatch.setattr(subprocess, 'run', asked)
  for stdout, is_first in (('index 0\n', True), ('noise\nindex 10\n', False)):
    answers.append((0, stdout))
    assert distributed.is_first_process({}, True) == is_first
  answers.append((1, ''))
  with pytest.raises(RuntimeError, match='did not find each other'):
    distributed.is_first_process({}, True)
