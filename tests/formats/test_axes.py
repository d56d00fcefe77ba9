"""Layouts of published files and ours, by hand."""

import numpy as np
from small_models import tiny_decoder

from score_jax.formats.axes import letter_sizes, to_ours, to_theirs


def test_layouts_go_both_ways():
  sizes = letter_sizes(tiny_decoder(embed_dim=6, head_dim=4))
  x = np.arange(96).reshape(16, 6)
  ours = to_ours(x, 'NJI D -> D N IJ', sizes)
  assert ours.shape == (6, 4, 4)
  assert ours[0, 0].tolist() == [0, 12, 6, 18]  # rows 0, 2, 1, 3
  np.testing.assert_array_equal(to_theirs(ours, 'NJI D -> D N IJ', sizes), x)
