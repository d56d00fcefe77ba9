"""Disks that are full, read-only or limited: what is said, of whatever was being written."""

import errno
import os

import pytest

from score_jax.core.storage import StorageError, fault_of, writing


@pytest.mark.parametrize(
  ('error', 'what'),
  [
    (OSError(errno.ENOSPC, 'x'), 'the disk is full'),
    (OSError(errno.EDQUOT, 'x'), 'quota'),
    (OSError(errno.EFBIG, 'x'), 'ulimit'),
    (OSError(errno.EROFS, 'x'), 'read-only'),
    (OSError(errno.EIO, 'x'), 'input/output'),
    (PermissionError(errno.EACCES, 'x'), 'permissions'),
    # As tensorstore says it, under Orbax.
    (ValueError('RESOURCE_EXHAUSTED: [OS error 28: No space left on device]'), 'full'),
  ],
)
def test_the_message_has_path_bytes_and_cause(tmp_path, error, what):
  path = tmp_path / 'not' / 'there'
  with pytest.raises(StorageError) as found, writing(path, 12345):
    raise error
  message = str(found.value)
  assert message.startswith(f'{path} cannot be written: ') and what in message
  assert '; 12,345 bytes were to be written; ' in message and 'Errno' not in message
  assert message.endswith(' bytes are free there') and '\n' not in message
  with pytest.raises(StorageError) as again, writing(tmp_path):
    raise found.value
  assert again.value is found.value  # the inner path is the one


def test_other_errors_pass():
  for error in (FileNotFoundError(errno.ENOENT, 'x'), KeyError('full'), ValueError('no')):
    assert fault_of(error) is None
    with pytest.raises(type(error)) as found, writing('x'):
      raise error
    assert found.value is error


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs /dev/full')
def test_a_device_that_is_full():
  with pytest.raises(StorageError, match='^/dev/full cannot be written: the disk is full; 1 bytes'):
    with writing('/dev/full', 1), open('/dev/full', 'w') as file:
      file.write('x')
      file.flush()
