"""A filter of system calls: what a computation needs, and nothing else (Linux).

The list names what is allowed, so that calls which a later kernel adds stay shut. No process or
thread can be started, no program executed, no socket made, no signal sent, no other process looked
at, no limit, owner or mode changed. A call that is not listed fails with ENOSYS, as if the kernel
did not have it, which is what C libraries are prepared for.
"""

import ctypes
import errno
import platform
import struct

# (x86_64, aarch64); None where the architecture does not have the call.
_ALLOWED = {
  'read': (0, 63),
  'write': (1, 64),
  'open': (2, None),
  'close': (3, 57),
  'stat': (4, None),
  'fstat': (5, 80),
  'lstat': (6, None),
  'lseek': (8, 62),
  'mmap': (9, 222),
  'mprotect': (10, 226),
  'munmap': (11, 215),
  'brk': (12, 214),
  'rt_sigaction': (13, 134),
  'rt_sigprocmask': (14, 135),
  'rt_sigreturn': (15, 139),
  'pread64': (17, 67),
  'pwrite64': (18, 68),
  'readv': (19, 65),
  'writev': (20, 66),
  'access': (21, None),
  'sched_yield': (24, 124),
  'mremap': (25, 216),
  'madvise': (28, 233),
  'dup': (32, 23),
  'dup2': (33, None),
  'nanosleep': (35, 101),
  'getpid': (39, 172),
  'exit': (60, 93),
  'uname': (63, 160),
  'fsync': (74, 82),
  'fdatasync': (75, 83),
  'ftruncate': (77, 46),
  'getcwd': (79, 17),
  'chdir': (80, 49),
  'rename': (82, None),
  'mkdir': (83, None),
  'rmdir': (84, None),
  'unlink': (87, None),
  'readlink': (89, None),
  'umask': (95, 166),
  'gettimeofday': (96, 169),
  'getrusage': (98, 165),
  'sysinfo': (99, 179),
  'times': (100, 153),
  'getuid': (102, 174),
  'getgid': (104, 176),
  'geteuid': (107, 175),
  'getegid': (108, 177),
  'getppid': (110, 173),
  'sigaltstack': (131, 132),
  'gettid': (186, 178),
  'futex': (202, 98),
  'sched_getaffinity': (204, 123),
  'getdents64': (217, 61),
  'restart_syscall': (219, 128),
  'clock_gettime': (228, 113),
  'clock_getres': (229, 114),
  'clock_nanosleep': (230, 115),
  'exit_group': (231, 94),
  'openat': (257, 56),
  'mkdirat': (258, 34),
  'newfstatat': (262, 79),
  'unlinkat': (263, 35),
  'renameat': (264, 38),
  'readlinkat': (267, 78),
  'faccessat': (269, 48),
  'set_robust_list': (273, 99),
  'dup3': (292, 24),
  'renameat2': (316, 276),
  'getrandom': (318, 278),
  'membarrier': (324, 283),
  'statx': (332, 291),
  'rseq': (334, 293),
  'close_range': (436, 436),
  'faccessat2': (439, 439),
}
# Allowed for these values of the second argument only.
_ALLOWED_COMMANDS = {
  # Descriptor flags and copies; no ownership, leases, pipes or signals.
  'fcntl': ((72, 25), (0, 1, 2, 3, 4, 1030)),
  # Whether it is a terminal; close-on-exec. Nothing that reaches a device.
  'ioctl': ((16, 29), (0x5401, 0x5450, 0x5451)),
}
_ARCHITECTURES = {'x86_64': (0, 0xC000003E), 'aarch64': (1, 0xC00000B7)}

_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF: ld [k] (32 bits), jeq k, ret k
_NUMBER, _ARCHITECTURE, _SECOND_ARGUMENT = 0, 4, 24  # offsets in struct seccomp_data
_ALLOW = _RETURN, 0, 0, 0x7FFF0000
_KILL = _RETURN, 0, 0, 0x80000000
_REFUSE = _RETURN, 0, 0, 0x00050000 | errno.ENOSYS

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2


class _Program(ctypes.Structure):
  _fields_ = [('length', ctypes.c_ushort), ('instructions', ctypes.c_char_p)]


def build_filter(machine: str) -> bytes:
  """The filter as BPF instructions.

  Args:
    machine: 'x86_64' or 'aarch64'.

  Returns:
    Instructions of 8 bytes each.

  Raises:
    OSError: no table for this machine.
  """
  if machine not in _ARCHITECTURES:
    raise OSError(
      errno.ENOSYS, f'no table of system calls for {machine!r}, only for {[*_ARCHITECTURES]}'
    )
  column, audit = _ARCHITECTURES[machine]
  # Another architecture's numbers mean other calls; x32 numbers are in no list and fall through.
  program = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, audit), _KILL, (_LOAD, 0, 0, _NUMBER)]
  for numbers in _ALLOWED.values():
    if numbers[column] is not None:
      program += [(_EQUAL, 0, 1, numbers[column]), _ALLOW]
  for numbers, commands in _ALLOWED_COMMANDS.values():
    checks = [(_LOAD, 0, 0, _SECOND_ARGUMENT)]
    for command in commands:
      checks += [(_EQUAL, 0, 1, command), _ALLOW]
    checks.append(_REFUSE)
    program += [(_EQUAL, 0, len(checks), numbers[column]), *checks]
  program.append(_REFUSE)
  return b''.join(struct.pack('HBBI', *instruction) for instruction in program)


def enter(libc: ctypes.CDLL) -> None:
  """Puts this process under the filter, for good; it must not gain privileges (no_new_privs).

  Args:
    libc: the C library, with errno.

  Raises:
    OSError: the kernel or the machine has no such filter.
  """
  instructions = build_filter(platform.machine())
  program = _Program(len(instructions) // 8, instructions)
  if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0):
    raise OSError(ctypes.get_errno(), 'prctl(PR_SET_SECCOMP) was refused')
