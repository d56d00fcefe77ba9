"""Checksums of saved arrays: they notice every bit, and are the ones in the docs."""

import jax.numpy as jnp
import numpy as np

from score_jax.runs import leaves


def test_checksums_notice_every_bit_and_every_exchange():
  for dtype in ['float32', 'bfloat16', 'int8', 'bool', 'uint32', 'float16', 'int64', 'float64']:
    x = np.arange(48).reshape(2, 3, 8).astype(jnp.dtype(dtype))
    want = leaves.checksums({('x',): x})['x']
    if dtype not in ('int64', 'float64'):  # JAX would make 32 bits of them
      assert leaves.checksums({('x',): jnp.asarray(x)})['x'] == want
    seen = {want, leaves.checksums({('x',): x[:, ::-1]})['x']}
    for byte in range(0, x.nbytes, 5):
      bad = bytearray(x.tobytes())
      bad[byte] ^= 1
      flipped = np.frombuffer(bytes(bad), x.dtype).reshape(x.shape)
      seen.add(leaves.checksums({('x',): flipped})['x'])
    assert len(seen) == 2 + len(range(0, x.nbytes, 5))


def test_checksum_of_a_word_is_the_one_in_the_docs():
  def mix(h):  # in Python's own integers
    h = (h ^ h >> 16) * 0x7FEB352D % 2**32
    h = (h ^ h >> 15) * 0x846CA68B % 2**32
    return h ^ h >> 16

  want = sum(mix(value ^ mix(place + 1)) for place, value in enumerate([5, 0, 7])) % 2**32
  assert leaves.checksums({('x',): jnp.array([5, 0, 7])}) == {'x': want}
