"""Landlock: a process gives up the file system, but for what it names (Linux 5.13 and later).

The kernel's numbers are those of linux/landlock.h; a version (ABI) adds rights to those before.
"""

import ctypes
import os
from collections.abc import Mapping

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # system calls, the same on all architectures
_VERSION_FLAG = 1
_PATH_BENEATH = 1

READ = 1 << 2 | 1 << 3  # READ_FILE, READ_DIR
_READ_FILE = 1 << 2
# WRITE_FILE, REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG, TRUNCATE; no device, socket or link.
WRITE = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 14
# Before ABI 3 a file that can be read can be truncated.
MIN_ABI = 3


class _Ruleset(ctypes.Structure):
  _fields_ = [
    ('files', ctypes.c_uint64),
    ('network', ctypes.c_uint64),
    ('scoped', ctypes.c_uint64),
  ]


class _PathBeneath(ctypes.Structure):
  _pack_ = 1
  _layout_ = 'ms'
  _fields_ = [('access', ctypes.c_uint64), ('folder', ctypes.c_int32)]


def abi(libc: ctypes.CDLL) -> int:
  """The kernel's Landlock version; 0 where there is none or it is switched off."""
  return max(0, libc.syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION_FLAG))


def make_ruleset(libc: ctypes.CDLL, allowed: Mapping[str, int]) -> int:
  """A set of rules: everything is shut but these paths and what lies beneath them.

  Args:
    libc: the C library, with errno.
    allowed: path -> rights (READ, WRITE or both).

  Returns:
    A file descriptor for `enter`; the caller closes it.

  Raises:
    OSError: the kernel has no Landlock of at least MIN_ABI, or a path does not open.
  """
  version = abi(libc)
  if version < MIN_ABI:
    raise OSError(f'Landlock has ABI {version}; at least {MIN_ABI} is needed')
  handled = (1 << 15) - 1 | (1 << 15 if version >= 5 else 0)
  # TCP bind and connect; abstract sockets and signals to processes outside.
  rules = _Ruleset(handled, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
  size = 8 if version < 4 else 16 if version < 6 else 24
  ruleset = libc.syscall(_CREATE, ctypes.byref(rules), ctypes.c_size_t(size), 0)
  if ruleset < 0:
    raise OSError(ctypes.get_errno(), 'landlock_create_ruleset was refused')
  for path, access in allowed.items():
    folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
      rule = _PathBeneath(access if os.path.isdir(path) else access & _READ_FILE, folder)
      if libc.syscall(_ADD, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0):
        raise OSError(ctypes.get_errno(), f'landlock_add_rule was refused for {path}')
    finally:
      os.close(folder)
  return ruleset


def enter(libc: ctypes.CDLL, ruleset: int) -> None:
  """Puts this process under the rules, for good; it must not gain privileges (no_new_privs)."""
  if libc.syscall(_RESTRICT, ruleset, 0):
    raise OSError(ctypes.get_errno(), 'landlock_restrict_self was refused')
