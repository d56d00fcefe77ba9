"""Event files, read with protobuf's own parser."""

import numpy as np
import pytest
from makers import read_events

from score_jax.runs import events


@pytest.mark.parametrize(
  'data, crc',
  [  # RFC 3720, B.4
    (bytes(32), 0x8A9136AA),
    (b'\xff' * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
  ],
)
def test_crc32c_of_the_standard(data, crc):
  assert events.masked_crc32c(data) == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def test_event_files_hold_negative_steps_and_numbers_beyond_float32(tmp_path):
  path = tmp_path / 'tfevents'
  rows = [(1.5, -1, {'a/b': 1e300, 'c': True}), (2.5, 300, {'é': -0.5})]
  path.write_bytes(events.event_file(rows))
  assert read_events(path) == {
    ('a/b', -1): (float(np.finfo(np.float32).max), 1.5),
    ('c', -1): (1.0, 1.5),
    ('é', 300): (-0.5, 2.5),
  }
