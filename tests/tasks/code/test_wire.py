"""Frames between judge and candidate: bad ones are refused."""

import pytest

from score_jax.tasks.code import wire


@pytest.mark.parametrize(
  'frame',
  [
    b'\xff\xff\xff\xff',
    (1).to_bytes(4, 'big') + b'{',
    (5).to_bytes(4, 'big') + b'\x80\x04abc',
    (wire.MAX_NODES + 2).to_bytes(4, 'big') + b'[' * (wire.MAX_NODES + 2),
    (200_000).to_bytes(4, 'big') + b'[' * 200_000,
    (5000).to_bytes(4, 'big') + b'1' * 5000,
  ],
  ids=['size', 'syntax', 'pickle', 'parts', 'depth', 'digits'],
)
def test_bad_frames_are_refused(frame):
  position = 0

  def read(size):
    nonlocal position
    position += size
    return frame[position - size : position]

  with pytest.raises(wire.BadFrame):
    wire.receive(read)


def test_a_closed_connection_is_said_to_be_one():
  with pytest.raises(EOFError):
    wire.receive(lambda size: b'')
  with pytest.raises(wire.BadFrame):
    wire.pack('x' * wire.MAX_BYTES)
