"""Frames of JSON between the judge and a candidate: four bytes of length, then the text.

JSON and nothing richer: what comes from a candidate was written by an untrusted program, and a
format that can build objects (pickle, marshal) would hand it the judge.
"""

import json
from collections.abc import Callable
from typing import Any

MAX_BYTES = 4 << 20
# Lists, and elements of lists: JSON of this length could hold millions of empty lists.
MAX_NODES = 400_000


class BadFrame(ValueError):
  """What came is not a frame of JSON, or is larger than a frame may be."""


def pack(message: Any) -> bytes:
  """A message as a frame.

  Args:
    message: anything that JSON holds.

  Returns:
    The bytes to send.

  Raises:
    BadFrame: the message is too large.
  """
  body = json.dumps(message, separators=(',', ':')).encode('ascii')
  _check_size(len(body))
  return len(body).to_bytes(4, 'big') + body


def receive(read: Callable[[int], bytes]) -> Any:
  """Reads one message.

  Args:
    read: takes a number of bytes and returns at most so many, none at the end, like `socket.recv`.

  Returns:
    The message.

  Raises:
    EOFError: the other end is closed.
    BadFrame: it is no JSON, too long, or has too many parts.
  """
  size = int.from_bytes(_exactly(read, 4), 'big')
  _check_size(size)
  body = _exactly(read, size)
  num_nodes = body.count(b',') + body.count(b'[') + body.count(b'{')
  if num_nodes > MAX_NODES:
    raise BadFrame(f'up to {num_nodes:,} parts; a message has at most {MAX_NODES:,}')
  try:
    return json.loads(body)
  except (ValueError, RecursionError) as error:
    raise BadFrame(f'no JSON: {error}') from error


def _check_size(size: int) -> None:
  if size > MAX_BYTES:
    raise BadFrame(f'{size:,} bytes; a message has at most {MAX_BYTES:,}')


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
  chunks = []
  while size:
    chunk = read(min(size, 1 << 16))
    if not chunk:
      raise EOFError
    chunks.append(chunk)
    size -= len(chunk)
  return b''.join(chunks)
