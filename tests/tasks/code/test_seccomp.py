"""The filter of system calls, run by the rules of BPF."""

import struct

import pytest

from score_jax.tasks.code import seccomp


def run_filter(program, architecture, number, second_argument):
  """What a filter returns, by the rules of BPF."""
  data = struct.pack('IIQQQ', number, architecture, 0, 0, second_argument)
  instructions = list(struct.iter_unpack('HBBI', program))
  value, position = 0, 0
  while True:
    code, if_true, if_false, operand = instructions[position]
    position += 1
    if code == 0x20:
      (value,) = struct.unpack_from('I', data, operand)
    elif code == 0x15:
      position += if_true if value == operand else if_false
    else:
      assert code == 0x06
      return operand


ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050026


@pytest.mark.parametrize(
  ('machine', 'architecture', 'number', 'second_argument', 'action'),
  [
    ('x86_64', 0xC000003E, 0, 0, ALLOW),  # read
    ('x86_64', 0xC000003E, 439, 0, ALLOW),  # faccessat2, the last of the list
    ('x86_64', 0xC000003E, 41, 0, REFUSE),  # socket
    ('x86_64', 0xC000003E, 56, 0, REFUSE),  # clone
    ('x86_64', 0xC000003E, 59, 0, REFUSE),  # execve
    ('x86_64', 0xC000003E, 101, 0, REFUSE),  # ptrace
    ('x86_64', 0xC000003E, 62, 0, REFUSE),  # kill
    ('x86_64', 0xC000003E, 0x40000000, 0, REFUSE),  # read by its x32 number
    ('x86_64', 0x40000003, 0, 0, KILL),  # i386
    ('x86_64', 0xC000003E, 72, 3, ALLOW),  # fcntl, F_GETFL
    ('x86_64', 0xC000003E, 72, 8, REFUSE),  # fcntl, F_SETOWN
    ('x86_64', 0xC000003E, 16, 0x5401, ALLOW),  # ioctl, TCGETS
    ('x86_64', 0xC000003E, 16, 0x5412, REFUSE),  # ioctl, TIOCSTI
    ('aarch64', 0xC00000B7, 63, 0, ALLOW),  # read
    ('aarch64', 0xC00000B7, 198, 0, REFUSE),  # socket
    ('aarch64', 0xC00000B7, 220, 0, REFUSE),  # clone
    ('aarch64', 0xC000003E, 63, 0, KILL),
  ],
)
def test_the_filter_of_system_calls(machine, architecture, number, second_argument, action):
  program = seccomp.build_filter(machine)
  assert run_filter(program, architecture, number, second_argument) == action


def test_an_unknown_machine_has_no_filter():
  with pytest.raises(OSError, match="'riscv64'"):
    seccomp.build_filter('riscv64')
