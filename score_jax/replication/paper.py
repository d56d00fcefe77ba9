"""The paper's own numbers, as data, to stand beside the measured ones.

In percent, as printed, so that they can be held against the paper digit by digit; `fractions` gives
them in the unit of every measured number. None where the paper gives none.

Source: arXiv:2409.12917 v2 (MATH500, Gemini 1.5 Flash, greedy: methods and ablations; Fig. 1,
right: inference scaling) and Appendix A.1 of the ICLR 2025 camera-ready (Gemma-2-2B, three turns).
"""

METRICS = ('acc_t1', 'acc_t2', 'delta', 'i2c', 'c2i')

# By row: acc_t1, acc_t2, delta, i2c, c2i on the 500 problems of MATH500.
MATH = {
  'base': (52.6, 41.4, -11.2, 4.6, 15.8),
  'self_refine': (52.8, 51.8, -1.0, 3.2, 4.2),
  'star_d': (55.4, 41.2, -14.2, 5.4, 19.6),
  'star_dplus': (53.6, 54.0, 0.4, 2.6, 2.2),
  'pair_sft_d': (52.4, 54.2, 1.8, 5.4, 3.6),
  'pair_sft_dplus': (55.0, 55.0, 0.0, 0.0, 0.0),
  'score': (60.0, 64.4, 4.4, 5.8, 1.4),
  # The ablations, of which the paper gives the first three numbers.
  'single_turn_rl': (61.8, 59.4, -2.4, None, None),
  'no_stage1': (59.2, 61.4, 2.2, None, None),
  'no_bonus': (60.0, 62.6, 2.6, None, None),
  'star_stage2': (56.2, 58.4, 2.2, None, None),
  'off_policy_turn1': (60.4, 60.6, 0.2, None, None),
}

# By row: accuracy at turns 1, 2 and 3 of Gemma-2-2B on MATH.
THREE_TURNS = {
  'turns_base': (16.8, 16.8, 17.0),
  'turns_stage1a': (17.6, 20.0, 19.8),
  'turns_stage1b': (16.6, 18.4, 23.2),
  'turns_stage2': (23.0, 24.0, 24.0),
}

# What majority voting gains at a budget of 32 samples over one sample, in points (Fig. 1, right).
GAIN_PARALLEL_32 = 7.4
GAIN_SEQUENTIAL_32 = 10.5


def fractions(key: str) -> dict[str, float]:
  """Gives the paper's numbers of one row in the unit of the measured ones.

  Args:
    key: of `MATH` or `THREE_TURNS`; '' for a row that the paper does not have.

  Returns:
    Metric -> fraction, without the metrics that the paper leaves out.

  Raises:
    ValueError: for a key of neither table.

  Example:
    >>> fractions('no_bonus')
    {'acc_t1': 0.6, 'acc_t2': 0.626, 'delta': 0.026}
  """
  if not key:
    return {}
  if key in MATH:
    numbers = dict(zip(METRICS, MATH[key], strict=True))
  elif key in THREE_TURNS:
    numbers = {f'acc_t{k + 1}': x for k, x in enumerate(THREE_TURNS[key])}
  else:
    known = ', '.join([*MATH, *THREE_TURNS])
    raise ValueError(f'the paper has no row {key!r}; it has: {known}')
  return {name: round(x / 100, 4) for name, x in numbers.items() if x is not None}
