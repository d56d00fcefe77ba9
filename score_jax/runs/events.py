"""TensorBoard event files of scalars, written without TensorFlow.

The format is small enough to write it here: a file is a row of records,

    u64 length | u32 crc of the length | data | u32 crc of the data

little endian, with masked CRC-32C sums, and each record is a protocol buffer message

    Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; }
    Summary { repeated Value value = 1; }     Value { string tag = 1; float simple_value = 2; }

(tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto.) The packages that
write it bring TensorFlow, or import PyTorch wherever that is installed: seconds of start and
hundreds of megabytes in every training process, for some forty lines.
"""

import struct
from collections.abc import Iterable, Mapping


def _crc_table() -> list[int]:
  """CRC-32C (Castagnoli), reflected polynomial 0x82F63B78, of every byte."""
  table = []
  for byte in range(256):
    for _ in range(8):
      byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    table.append(byte)
  return table


_CRC_TABLE = _crc_table()
_FLOAT32_MAX = (2 - 2**-23) * 2.0**127


def masked_crc32c(data: bytes) -> int:
  """Returns the checksum of a record as the file format has it: CRC-32C, rotated and shifted.

  Args:
    data: any bytes.

  Example:
    >>> hex(masked_crc32c(b'123456789'))  # the CRC-32C of these digits is 0xe3069283
    '0xc78ab0e5'
  """
  crc = 0xFFFFFFFF
  for byte in data:
    crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
  crc ^= 0xFFFFFFFF
  return (crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8 & 0xFFFFFFFF


def _varint(number: int) -> bytes:
  """A whole number in groups of seven bits, lowest first; a negative one as 64 bits."""
  number &= 0xFFFFFFFFFFFFFFFF
  groups = bytearray()
  while number > 0x7F:
    groups.append(number & 0x7F | 0x80)
    number >>= 7
  groups.append(number)
  return bytes(groups)


def _message(field: int, data: bytes) -> bytes:
  return _varint(field << 3 | 2) + _varint(len(data)) + data


def _record(data: bytes) -> bytes:
  length = struct.pack('<Q', len(data))
  sums = struct.pack('<I', masked_crc32c(length)), struct.pack('<I', masked_crc32c(data))
  return length + sums[0] + data + sums[1]


def _float32(number: float) -> bytes:
  """A number in 32 bits; one beyond their range becomes the last one within."""
  return struct.pack('<f', min(max(number, -_FLOAT32_MAX), _FLOAT32_MAX))


def event_file(rows: Iterable[tuple[float, int, Mapping[str, float]]]) -> bytes:
  """Returns the content of an event file.

  Args:
    rows: wall time in seconds since 1970, step, and the scalars by tag, one row per event.

  Returns:
    The bytes; TensorBoard shows them if the file's name contains "tfevents".
  """
  rows = list(rows)
  start_s = rows[0][0] if rows else 0.0
  records = [_record(b'\x09' + struct.pack('<d', start_s) + _message(3, b'brain.Event:2'))]
  for wall_time_s, step, scalars in rows:
    values = b''.join(
      _message(1, _message(1, tag.encode('utf-8')) + b'\x15' + _float32(value))
      for tag, value in scalars.items()
    )
    head = b'\x09' + struct.pack('<d', wall_time_s) + b'\x10' + _varint(step)
    records.append(_record(head + _message(5, values)))
  return b''.join(records)
