"""Linux namespaces: a root directory of its own that holds the standard library and nothing else.

The zygote calls `enter_root` once, and the keeper of each candidate `enter_process`, so that every
candidate is process 1 of its own process namespace (when it ends, the kernel ends all that it
started) and finds an empty /tmp that nobody had before.
"""

import ctypes
import os
from collections.abc import Sequence

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = (
  0x00020000,
  0x04000000,
  0x08000000,
  0x10000000,
  0x20000000,
  0x40000000,
)
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT = 1, 2, 4, 8, 32
_BIND, _REC, _PRIVATE = 4096, 16384, 1 << 18
_DETACH = 2
_PIVOT_ROOT = {'x86_64': 155, 'aarch64': 41}

TEMPORARY_BYTES = 16 << 20
_TEMPORARY_FILES = 1000
_MOUNT_POINT = '/tmp'  # covered in our own mount namespace only
# Installed packages lie beneath the standard library, and among them this one.
NOT_STANDARD = ('site-packages', 'dist-packages')


def enter_root(libc: ctypes.CDLL, folders: Sequence[str]) -> None:
  """Moves this process into new user, mount, network, IPC and host-name namespaces.

  Its file system is then the given folders, read-only and under their own names, and /tmp.

  Args:
    libc: the C library, with errno.
    folders: absolute paths of directories.

  Raises:
    OSError: the kernel or its settings do not let this user; the process may be half moved and is
      to be given up.
  """
  spaces = _NEWNS | _NEWNET | _NEWIPC | _NEWUTS
  user, group = os.geteuid(), os.getegid()
  if libc.unshare(spaces | _NEWUSER) == 0:
    _write('/proc/self/setgroups', 'deny')
    _write('/proc/self/uid_map', f'{user} {user} 1')
    _write('/proc/self/gid_map', f'{group} {group} 1')
  else:
    # Root of a container may have user namespaces switched off and the others not.
    _check(libc.unshare(spaces), 'unshare')
  _mount(libc, None, '/', None, _REC | _PRIVATE)
  # Held open, since they may lie beneath the mount point (a virtual environment in /tmp).
  opened = [os.open(folder, os.O_PATH | os.O_CLOEXEC) for folder in folders]
  _mount(libc, 'tmpfs', _MOUNT_POINT, 'tmpfs', _NOSUID | _NODEV, 'size=1m,mode=755')
  for folder, descriptor in zip(folders, opened, strict=True):
    target = _MOUNT_POINT + folder
    os.makedirs(target, exist_ok=True)
    _mount(libc, f'/proc/self/fd/{descriptor}', target, None, _BIND | _REC)
    os.close(descriptor)
    for name in NOT_STANDARD:
      if os.path.isdir(f'{target}/{name}'):
        options = 'size=4k,mode=555'
        _mount(libc, 'tmpfs', f'{target}/{name}', 'tmpfs', _RDONLY | _NOSUID | _NODEV, options)
    _make_read_only(libc, target)
  os.makedirs(_MOUNT_POINT + '/tmp', exist_ok=True)
  os.chdir(_MOUNT_POINT)
  _check(libc.syscall(_PIVOT_ROOT[os.uname().machine], b'.', b'.'), 'pivot_root')
  _check(libc.umount2(b'.', _DETACH), 'umount2')
  os.chdir('/')
  _make_read_only(libc, '/')


def enter_process(libc: ctypes.CDLL) -> None:
  """Gives the next child a process namespace of its own, and a new, small /tmp in memory.

  Args:
    libc: the C library, with errno.

  Raises:
    OSError: as `enter_root`.
  """
  _check(libc.unshare(_NEWPID | _NEWNS), 'unshare')
  options = f'size={TEMPORARY_BYTES},nr_inodes={_TEMPORARY_FILES},mode=700'
  _mount(libc, 'tmpfs', '/tmp', 'tmpfs', _NOSUID | _NODEV | _NOEXEC, options)


def _make_read_only(libc: ctypes.CDLL, path: str) -> None:
  """A mount made read-only; flags that it has already may not be taken off."""
  flags = os.statvfs(path).f_flag & (_NOSUID | _NODEV | _NOEXEC)
  _mount(libc, None, path, None, _REMOUNT | _BIND | _RDONLY | flags)


def _mount(libc, source, target: str, kind, flags: int, options: str = '') -> None:
  encoded = [text and text.encode() for text in (source, target, kind)]
  _check(libc.mount(*encoded, ctypes.c_ulong(flags), options.encode()), f'mount on {target}')


def _write(path: str, text: str) -> None:
  with open(path, 'w') as f:
    f.write(text)


def _check(result: int, what: str) -> None:
  if result:
    raise OSError(ctypes.get_errno(), f'{what} was refused')
