"""How a tensor's axes in a file become those of our parameters: 'NH D -> D N H'.

One letter is one factor, one word is one axis. `V D F N M H` are the sizes of CONTRIBUTING.md; a
head H is also `J` pairs of `I` = 2, for files that interleave the rotary pairs.
"""

import math

import numpy as np

from score_jax.model.decoder_config import DecoderConfig


def letter_sizes(config: DecoderConfig) -> dict[str, int]:
  """The size of each letter."""
  return {
    'V': config.vocab_size,
    'D': config.embed_dim,
    'F': config.mlp_dim,
    'N': config.num_heads,
    'M': config.num_kv_heads,
    'H': config.head_dim,
    'I': 2,
    'J': config.head_dim // 2,
  }


def shape_in_file(layout: str, sizes: dict[str, int]) -> tuple[int, ...]:
  """The shape on the left of a layout.

  Example:
    >>> shape_in_file('NH D -> D N H', {'N': 2, 'H': 3, 'D': 5})
    (6, 5)
  """
  return tuple(math.prod(sizes[c] for c in axis) for axis in layout.split('->')[0].split())


def to_ours(values: np.ndarray, layout: str, sizes: dict[str, int]) -> np.ndarray:
  """Brings a file's tensor into our layout.

  Args:
    values: of the shape on the left of the layout.
    layout: 'axes in the file -> axes in our tree'.
    sizes: from `letter_sizes`.

  Returns:
    The shape on the right; a view where that is possible.

  Example:
    >>> to_ours(np.arange(4).reshape(4, 1), 'JI D -> D IJ', {'J': 2, 'I': 2, 'D': 1})
    array([[0, 2, 1, 3]])
  """
  theirs, ours = (side.split() for side in layout.split('->'))
  letters = ''.join(theirs)
  values = values.reshape([sizes[letter] for letter in letters])
  values = values.transpose([letters.index(letter) for letter in ''.join(ours)])
  return values.reshape([math.prod(sizes[letter] for letter in axis) for axis in ours])


def to_theirs(values: np.ndarray, layout: str, sizes: dict[str, int]) -> np.ndarray:
  """The way back: from our layout to the file's.

  Args:
    values: of the shape on the right of the layout.
    layout: 'axes in the file -> axes in our tree'.
    sizes: from `letter_sizes`.

  Returns:
    The shape on the left; a view where that is possible.
  """
  theirs, ours = layout.split('->')
  return to_ours(values, f'{ours} -> {theirs}', sizes)
