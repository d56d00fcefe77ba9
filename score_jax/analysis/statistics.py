"""Shares, differences and means with their 95% intervals, and the metrics of an evaluation."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from score_jax.analysis.edits import edit_distance_ratio

Z = 1.959964  # the 97.5% quantile of the normal distribution
RATIOS = ('e_minus', 'e_plus', 'i2c_truncated')  # metrics that are shares of some problems only


def share(count: int, total: int) -> dict[str, float]:
  """A fraction with its 95% Wilson interval.

  Args:
    count: successes.
    total: trials, above 0.

  Returns:
    {'mean', 'low', 'high'} as fractions.

  Example:
    >>> {k: round(v, 3) for k, v in share(5, 10).items()}
    {'mean': 0.5, 'low': 0.237, 'high': 0.763}
  """
  interval = stats.binomtest(int(count), int(total)).proportion_ci(0.95, method='wilson')
  return {'mean': float(count / total), 'low': float(interval.low), 'high': float(interval.high)}


def ratio(x: np.ndarray) -> dict[str, float | None]:
  """`share` of the problems that count, with how many they are.

  Args:
    x: [N], 0 or 1, NaN for a problem that does not count.

  Returns:
    {'mean', 'low', 'high', 'denominator'}; without any that counts the first three are None.

  Example:
    >>> ratio(np.array([1, 0, np.nan]))['mean'], ratio(np.array([np.nan]))['mean']
    (0.5, None)
  """
  x = np.asarray(x)[~np.isnan(x)]
  found = share(x.sum(), x.size) if x.size else dict.fromkeys(('mean', 'low', 'high'))
  return found | {'denominator': x.size}


def paired_difference(gained: int, lost: int, total: int) -> dict[str, float]:
  """The difference of two accuracies on the same problems, with its 95% interval.

  The Agresti-Min interval: the Wald interval of paired proportions after half a problem has been
  added to each of the four outcomes. It does not collapse to a point when nothing changed.

  Args:
    gained: problems wrong before and right after.
    lost: problems right before and wrong after.
    total: all problems.

  Returns:
    {'mean', 'low', 'high'} as fractions.

  Example:
    >>> {k: round(v, 3) for k, v in paired_difference(10, 0, 100).items()}
    {'mean': 0.1, 'low': 0.037, 'high': 0.159}

  Source: Agresti and Min, Statistics in Medicine 24 (2005), 729-740.
  """
  n, b, c = total + 2, gained + 0.5, lost + 0.5
  centre = (b - c) / n
  half = Z * np.sqrt((b + c) - (b - c) ** 2 / n) / n
  return {
    'mean': float((gained - lost) / total),
    'low': max(-1.0, float(centre - half)),
    'high': min(1.0, float(centre + half)),
  }


def mean_interval(
  values: Sequence[float], least: float = -np.inf, most: float = np.inf
) -> dict[str, float]:
  """A mean with its 95% normal interval.

  Args:
    values: at least one number.
    least: that a value can be; the interval does not reach below, whatever its formula says.
    most: that a value can be.

  Returns:
    {'mean', 'low', 'high'} in the values' unit.
  """
  x = np.asarray(values, float)
  half = Z * x.std(ddof=1) / np.sqrt(len(x)) if len(x) > 1 else 0.0
  return {
    'mean': float(x.mean()),
    'low': max(least, float(x.mean() - half)),
    'high': min(most, float(x.mean() + half)),
  }


def crossed_interval(x_SN: np.ndarray) -> dict[str, float]:
  """The mean over seeds and problems, with a 95% interval that holds for others of both.

  Each of S training seeds was evaluated on the same N problems, so the numbers are not S N
  independent ones: a lucky seed moves a whole row, a hard problem a whole column. To compare two
  policies, pass x - y, row by row of the same seed and column by column of the same problem.

      variance = var(seed means) / S + (squares + 1) / N^2
      squares  = sum_n (mean of problem n - mean)^2

  The first term takes S - 1 degrees of freedom, the second N - 1, and the quantile is that of
  Student's t with Welch and Satterthwaite's combination of them. With one seed there is nothing to
  learn about seeds: the interval is then for that seed's policy on other problems, with the normal
  quantile. The part of a number that neither its seed nor its problem explains, of variance e, adds
  e / (S N) to both terms where the mean has it once: where seeds matter less than problems, the
  interval is rather wide. Where seeds are few and nearly all that matters, it is rather narrow:
  simulated with three, it covers 97% to 99% in the one case and 92% in the other.

  The added 1 keeps the interval from collapsing to a point where no problem differs, as when a
  policy changes no answer: that is no proof that it never would. It is what half a problem gained
  and half a problem lost add to the sum of squares, as in `paired_difference`; the centre stays the
  mean. Of N problems without a difference this makes 0 +- 1.96 / N.

  Args:
    x_SN: in [-1, 1], S seeds and N problems, at least one of each: rewards or other shares of each
      problem, or differences of such.

  Returns:
    {'mean', 'low', 'high'}, within [-1, 1].

  Raises:
    ValueError: if there are not two axes, an axis is empty, or a number is not in [-1, 1].

  Example:
    >>> crossed_interval([[0, 0, 0, 0]])
    {'mean': 0.0, 'low': -0.489991, 'high': 0.489991}

  Source: Satterthwaite, Biometrics Bulletin 2 (1946), 110-114, for the degrees of freedom; Agresti
  and Min, Statistics in Medicine 24 (2005), 729-740, for the added half problems.
  """
  x_SN = np.asarray(x_SN, float)
  if x_SN.ndim != 2 or not x_SN.size:
    raise ValueError(f'crossed_interval takes [seeds, problems], none of them 0; got {x_SN.shape}')
  if not (np.abs(x_SN) <= 1).all():
    raise ValueError(
      'crossed_interval takes shares or their differences, from -1 to 1; '
      f'got {x_SN.min()} to {x_SN.max()}'
    )
  mean, half = float(x_SN.mean()), _crossed_half(x_SN)
  return {'mean': mean, 'low': max(-1.0, mean - half), 'high': min(1.0, mean + half)}


def _crossed_half(x_SN: np.ndarray) -> float:
  """Half the width of `crossed_interval`."""
  num_seeds, num_problems = x_SN.shape
  by_problem = (((x_SN.mean(axis=0) - x_SN.mean()) ** 2).sum() + 1) / num_problems**2
  by_seed, quantile = 0.0, Z
  if num_seeds > 1:
    by_seed = x_SN.mean(axis=1).var(ddof=1) / num_seeds
    spread = by_seed**2 / (num_seeds - 1) + by_problem**2 / max(num_problems - 1, 1)
    quantile = stats.t.ppf(0.975, (by_seed + by_problem) ** 2 / spread)
  return float(quantile * np.sqrt(by_seed + by_problem))


def crossed_share(x_SN: np.ndarray) -> dict[str, float]:
  """`crossed_interval` of shares, of which none is negative, whatever its formula says near 0.

  Args:
    x_SN: in [0, 1], as for `crossed_interval`; not a difference.

  Returns:
    {'mean', 'low', 'high'}, within [0, 1].

  Raises:
    ValueError: as `crossed_interval`, and for a number below 0.

  Example:
    >>> crossed_share([[0, 0, 0, 0]])
    {'mean': 0.0, 'low': 0.0, 'high': 0.489991}
  """
  if np.min(x_SN, initial=0) < 0:
    raise ValueError(f'crossed_share takes shares, none below 0; got {np.min(x_SN)}')
  found = crossed_interval(x_SN)
  return found | {'low': max(0.0, found['low'])}


def crossed_ratio(x_SN: np.ndarray) -> dict[str, float | None]:
  """`crossed_share` of those problems that count, which may be other ones with each seed.

      R = sum_sn d x / sum_sn d                      d: 1 where a problem counts, else 0
      variance(R) = variance(d (x - R)) / (mean d)^2          the delta method, as R has a random d

  Args:
    x_SN: as for `crossed_share`; NaN where a problem does not count.

  Returns:
    As `ratio`, with the denominator of all seeds together; the errors are `crossed_share`'s.

  Example:
    >>> crossed_ratio([[0, 0, np.nan, np.nan]])
    {'mean': 0.0, 'low': 0.0, 'high': 0.979982, 'denominator': 2}
  """
  x_SN = np.asarray(x_SN, float)
  counts_SN = ~np.isnan(x_SN)
  mean = crossed_share(np.where(counts_SN, x_SN, 0))['mean']
  if not counts_SN.any():
    return ratio(x_SN)
  mean /= float(counts_SN.mean())
  half = _crossed_half(np.where(counts_SN, x_SN - mean, 0)) / float(counts_SN.mean())
  ends = {'low': max(0.0, mean - half), 'high': min(1.0, mean + half)}
  return {'mean': mean, **ends, 'denominator': int(counts_SN.sum())}


def mcnemar(gained: int, lost: int) -> float:
  """McNemar's exact test of whether two accuracies on the same problems differ.

  If they do not, a problem whose outcome changed was as likely gained as lost: the two-sided
  binomial test of `gained` among `gained + lost`.

  Args:
    gained: problems wrong before and right after.
    lost: problems right before and wrong after.

  Returns:
    The p-value; 1 where nothing changed.

  Example:
    >>> mcnemar(5, 1)  # 2 (1 + 6) / 2^6
    0.21875

  Source: McNemar, Psychometrika 12 (1947), 153-157, with exact probabilities for its chi-square.
  """
  if gained + lost == 0:
    return 1.0
  return float(stats.binomtest(int(gained), int(gained + lost), 0.5).pvalue)


def per_problem(records: Sequence[Mapping]) -> dict[str, np.ndarray]:
  """Each problem's part in an evaluation's metrics.

  Those of several seeds, stacked to [S, N], are what `crossed_interval` takes; so are differences
  of two policies on the same problems.

  Args:
    records: of an evaluation, N problems.

  Returns:
    f64[N] each: `acc_tK` for each turn; with two turns or more, for the last two: `delta` (-1, 0 or
    1), `i2c`, `c2i` and `changed` (0 or 1), and the `RATIOS`, NaN where a problem does not count;
    `i2c_truncated` only of records with 'truncated'. Their means are those of `summarise`.

  Raises:
    ValueError: if there are no records.

  Example:
    >>> records = [{'rewards': [0, 1], 'finals': ['3', '4']}, {'rewards': [1, 1], 'finals': '44'}]
    >>> per_problem(records)['delta']
    array([1., 0.])
  """
  if not records:
    raise ValueError('an evaluation of no problems has no metrics')
  right_NK = np.asarray([r['rewards'] for r in records]) > 0
  values = {f'acc_t{k + 1}': right_NK[:, k] for k in range(right_NK.shape[1])}
  if right_NK.shape[1] > 1:
    before, now = right_NK[:, -2], right_NK[:, -1]
    values |= {
      'delta': now.astype(float) - before,
      'i2c': ~before & now,
      'c2i': before & ~now,
      'changed': [r['finals'][-2] != r['finals'][-1] for r in records],
      'e_minus': np.where(before, ~now, np.nan),
      'e_plus': np.where(before, np.nan, ~now),
    }
    if all('truncated' in r for r in records):
      was_cut = [r['truncated'][-2] for r in records]
      values['i2c_truncated'] = np.where(values['i2c'], was_cut, np.nan)
  return {name: np.asarray(x, float) for name, x in values.items()}


def summarise(records: Sequence[Mapping]) -> dict[str, dict[str, float]]:
  """Turns per-problem records into the paper's metrics.

  Args:
    records: of an evaluation.

  Returns:
    `acc_tK`, `length_tK` in tokens and `truncated_tK` for each turn; for the last two turns `delta`
    (later minus earlier accuracy), `i2c` (wrong then right), `c2i` (right then wrong) and `changed`
    (another final answer), as fractions, and `edit_ratio`, the mean of `edit_distance_ratio`. With
    more than two turns also `delta_t1tK` (accuracy at turn K minus that at turn 1) from the third
    turn on, and `changed_tJK` for each two turns in a row. Each with its 95% interval. The
    `RATIOS`, of the last two turns, are of as many problems as 'denominator' says: `e_minus`, the
    share of right answers that are spoilt, `e_plus`, that of wrong ones that are left wrong (both
    after arXiv:2510.12157), and `i2c_truncated`, that of `i2c` whose earlier answer was cut off.

  Raises:
    ValueError: if there are no records.
  """
  values = per_problem(records)
  n, num_turns = len(records), len(records[0]['rewards'])
  metrics = {}
  for k in range(num_turns):
    metrics[f'acc_t{k + 1}'] = share(values[f'acc_t{k + 1}'].sum(), n)
    metrics[f'length_t{k + 1}'] = mean_interval([r['tokens'][k] for r in records], 0.0)
    metrics[f'truncated_t{k + 1}'] = share(sum(r['truncated'][k] for r in records), n)
  if num_turns > 1:
    metrics['delta'] = paired_difference(values['i2c'].sum(), values['c2i'].sum(), n)
    metrics |= {name: share(values[name].sum(), n) for name in ('i2c', 'c2i', 'changed')}
    metrics |= {name: ratio(values[name]) for name in RATIOS}
    ratios = [edit_distance_ratio(*r['answers'][-2:]) for r in records]
    metrics['edit_ratio'] = mean_interval(ratios, 0.0, 1.0)
  if num_turns > 2:
    for k in range(3, num_turns + 1):
      change = values[f'acc_t{k}'] - values['acc_t1']
      metrics[f'delta_t1t{k}'] = paired_difference((change > 0).sum(), (change < 0).sum(), n)
    for k in range(1, num_turns):
      changed = sum(r['finals'][k - 1] != r['finals'][k] for r in records)
      metrics[f'changed_t{k}{k + 1}'] = share(changed, n)
  return metrics
