"""Compares rows, and says in words how each of the paper's orderings falls.

Each comparison is of two rows on the same problems and the same seeds. A claim "A is above B" held
if the 95% interval of A minus B lies above 0, is reversed if it lies below 0, and else the two are
not separated at this scale. Each interval stands for itself: none is widened for the number of
comparisons.
"""

import dataclasses
from collections.abc import Mapping

from score_jax.analysis.statistics import mcnemar
from score_jax.replication import paper, series
from score_jax.replication.results import Result, aligned, difference, shortfall

HELD, NOT_SEPARATED, REVERSED = 'held', 'not separated', 'reversed'
NOT_MEASURED, DID_NOT_HOLD = 'not measured', 'did not hold'

COMPARED = ('acc_t1', 'acc_t2', 'delta', 'changed')
WORDS = {
  'acc_t1': 'Accuracy@t1',
  'acc_t2': 'Accuracy@t2',
  'delta': 'Δ(t1,t2)',
  'changed': 'share of changed answers',
}
SUPERVISED = ('star_d', 'star_dplus', 'pair_sft_d', 'pair_sft_dplus')
BASELINES = ('base', 'self_refine', *SUPERVISED, 'single_turn_rl', 'multiturn_rl', 'last_turn_rl')
ABLATIONS = ('single_turn_rl', 'no_stage1', 'no_bonus', 'star_stage2', 'off_policy_turn1')
VOTING_BUDGET = 32


@dataclasses.dataclass(frozen=True)
class Claim:
  """What the paper says of one row against others.

  Attributes:
    name: of the claim, for report.json.
    text: the claim in words.
    key: of the metric that is compared.
    others: names of the rows that 'score' should lie above.
  """

  name: str
  text: str
  key: str
  others: tuple[str, ...]


CLAIMS = (
  Claim(
    'delta_above_baselines',
    "SCoRe's Δ(t1,t2) lies above every baseline's (the paper's main table).",
    'delta',
    BASELINES,
  ),
  Claim(
    'changes_more_answers',
    'Plain multi-turn RL and the supervised baselines change their answers less often than SCoRe '
    '(the paper, read off the chart of Fig. 6: plain multi-turn RL falls from about 38% to 16%, '
    'Stage II from about 31% to 27%; Fig. 4: the edits of STaR and SFT peak at none).',
    'changed',
    ('multiturn_rl', 'last_turn_rl', *SUPERVISED),
  ),
  Claim(
    'delta_falls_in_ablations',
    'Δ(t1,t2) falls when a part of SCoRe is taken away (the ablation table).',
    'delta',
    ABLATIONS,
  ),
)


def points(interval: Mapping[str, float], sign: bool = True) -> str:
  """Writes an interval in percent.

  Args:
    interval: {'mean', 'low', 'high'} as fractions.
    sign: whether a plus is written.

  Returns:
    Text.

  Example:
    >>> points({'mean': 0.05, 'low': -0.011, 'high': 0.1})
    '+5.0 [-1.1, +10.0]'
  """
  form = '+.1f' if sign else '.1f'
  # Adding 0.0 turns a rounded -0.0 into 0.0.
  mean, low, high = (
    format(round(100 * interval[k], 1) + 0.0, form) for k in ('mean', 'low', 'high')
  )
  return f'{mean} [{low}, {high}]'


def verdict(interval: Mapping[str, float] | None) -> str:
  """Says how "first above second" falls.

  Args:
    interval: of first minus second; None if it was not measured.

  Returns:
    'held', 'not separated', 'reversed' or 'not measured'.

  Example:
    >>> verdict({'mean': 0.05, 'low': 0.01, 'high': 0.09})
    'held'
  """
  if interval is None:
    return NOT_MEASURED
  if interval['low'] > 0:
    return HELD
  return REVERSED if interval['high'] < 0 else NOT_SEPARATED


def title(results: Mapping[str, Result], name: str) -> str:
  """A row's title, or its name where the report has no such row."""
  return results[name].row.title if name in results else name


def turn2_mcnemar(first: Result, second: Result, kind: str) -> dict[int, float]:
  """Tests, for each seed, whether two rows are right equally often at turn 2.

  Not pooled over seeds: the problems are the same ones in each, so that their discordant pairs are
  not independent of each other.

  Args:
    first: a row's result.
    second: another's.
    kind: of evaluation.

  Returns:
    Seed -> exact two-sided p, for the seeds that both have.
  """
  p = {}
  for seed, ours in first.outcomes[kind].items():
    if seed in second.outcomes[kind]:
      x_1N, y_1N = aligned([[ours], [second.outcomes[kind][seed]]], 'acc_t2')
      gained, lost = int(((x_1N > 0) & (y_1N == 0)).sum()), int(((x_1N == 0) & (y_1N > 0)).sum())
      p[seed] = mcnemar(gained, lost)
  return p


def comparisons(results: Mapping[str, Result], kind: str) -> dict[str, dict]:
  """Compares SCoRe with every other method and ablation.

  Args:
    results: by row name.
    kind: of evaluation.

  Returns:
    By the other row's name: `COMPARED` metric -> interval of SCoRe minus it, and 'mcnemar_t2';
    without the rows that cannot be compared.
  """
  score = results.get('score')
  found = {}
  for name, other in results.items():
    if name != 'score' and other.row.group in ('method', 'ablation'):
      intervals = {key: difference(score, other, kind, key) for key in COMPARED}
      if intervals['delta']:
        found[name] = intervals | {'mcnemar_t2': turn2_mcnemar(score, other, kind)}
  return found


def _missing(results: Mapping[str, Result], *names: str) -> str:
  """Says why rows could not be compared."""
  reasons = []
  for name in names:
    if name not in results:
      reasons.append(f'{name} is not among the rows')
    elif results[name].status:
      reasons.append(f'{title(results, name)}: {results[name].status}')
  return '; '.join(reasons) or 'the rows have no evaluation of the same seed'


def _paper_text(key: str, other: str) -> str:
  """The paper's two numbers, where it gives both."""
  ours, theirs = (paper.MATH.get(name) for name in ('score', other))
  if key != 'delta' or not theirs:
    return ''
  place = paper.METRICS.index(key)
  return f' (paper: {ours[place]:+.1f} against {theirs[place]:+.1f})'


def judge(results: Mapping[str, Result], claim: Claim, other: str) -> dict:
  """Judges one claim against one row.

  Args:
    results: by row name.
    claim: the claim.
    other: the row that SCoRe should lie above.

  Returns:
    {'claim', 'other', 'metric', 'verdict', 'greedy', 'sampled', 'sentence'}; the verdict is of the
    greedy evaluation, which is the paper's.
  """
  both = results.get('score'), results.get(other)
  greedy, sampled = (difference(*both, kind, claim.key) for kind in ('greedy', 'sampled'))
  told = f"SCoRe's {WORDS[claim.key]} above that of “{title(results, other)}”"
  told += _paper_text(claim.key, other)
  if greedy is None:
    sentence = f'**{NOT_MEASURED}**: {told}: {_missing(results, "score", other)}.'
  else:
    sentence = f'**{verdict(greedy)}**: {told}: by {points(greedy)} points{shortfall(greedy)}'
    if sampled:
      sentence += f'; sampled at temperature 1 {verdict(sampled)}, {points(sampled)}'
      sentence += shortfall(sampled)
    sentence += '.'
  return {
    'claim': claim.name,
    'other': other,
    'metric': claim.key,
    'verdict': verdict(greedy),
    'greedy': greedy,
    'sampled': sampled,
    'sentence': sentence,
  }


def judge_voting(results: Mapping[str, Result]) -> dict:
  """Judges whether sequential correction beats parallel voting at the budget of 32.

  Args:
    results: by row name.

  Returns:
    As `judge`; the interval stands under 'sampled' (temperature 0.7).
  """
  score = results.get('score')
  scaled = series.vote_scaling(score, (VOTING_BUDGET,)) if score and score.votes else None
  gap = scaled[VOTING_BUDGET]['difference'] if scaled else None
  told = (
    f'majority vote over {VOTING_BUDGET // 2} first answers each corrected once beats majority '
    f'vote over {VOTING_BUDGET} independent first answers '
    f'(paper: gains of +{paper.GAIN_SEQUENTIAL_32} against +{paper.GAIN_PARALLEL_32})'
  )
  why = f'by {points(gap)} points' if gap else 'row score has no votes.jsonl'
  if gap and (lacks := score.lacks('votes')):
    why += f' (without seed {", ".join(map(str, lacks))})'
  return {
    'claim': 'sequential_beats_parallel',
    'other': '',
    'metric': 'voted accuracy',
    'verdict': verdict(gap),
    'greedy': None,
    'sampled': gap,
    'sentence': f'**{verdict(gap)}**: {told}: {why}.',
  }


def judge_control(results: Mapping[str, Result], key: str) -> dict:
  """Judges whether training on random rewards gained nothing, as it must.

  Args:
    results: by row name.
    key: 'acc_t1' or 'acc_t2'.

  Returns:
    As `judge`; 'did not hold' if the control lies above the base model in either way of decoding.
  """
  both = results.get('random_reward'), results.get('base')
  gaps = {kind: difference(*both, kind, key) for kind in ('greedy', 'sampled')}
  told = f'{WORDS[key]} under random rewards is not above that of the base model'
  measured = {kind: gap for kind, gap in gaps.items() if gap}
  if not measured:
    found, why = NOT_MEASURED, _missing(results, 'random_reward', 'base')
  else:
    found = DID_NOT_HOLD if any(gap['low'] > 0 for gap in measured.values()) else HELD
    gaps_told = (f'{points(gap)} ({kind}){shortfall(gap)}' for kind, gap in measured.items())
    why = f'it differs by {", ".join(gaps_told)}'
  sentence = f'**{found}**: {told}: {why}.'
  if found == DID_NOT_HOLD:
    sentence = (
      f'**WARNING, {found}**: {told}: {why}. Something other than the reward raises this '
      'accuracy, and no gain of the other rows can be put down to learning until it is found.'
    )
  return {
    'claim': 'random_reward_gains_nothing',
    'other': 'base',
    'metric': key,
    'verdict': found,
    **gaps,
    'sentence': sentence,
  }


def orderings(results: Mapping[str, Result]) -> list[tuple[str, list[dict]]]:
  """Judges every claim of the paper that the rows can speak to.

  Args:
    results: by row name.

  Returns:
    (claim in words, its judgements) in the order of the report. A baseline that the report has no
    row for, or that cannot be run at this scale, is left out of the first three claims.
  """
  judged = []
  for claim in CLAIMS:
    others = [o for o in claim.others if o in results and not results[o].row.not_applicable]
    judged.append((claim.text, [judge(results, claim, other) for other in others]))
  voting = 'At a budget of 32 samples, correcting beats voting (Fig. 1, right).'
  judged.append((voting, [judge_voting(results)]))
  control = 'The control that is trained on random rewards gains nothing over the base model.'
  judged.append((control, [judge_control(results, key) for key in ('acc_t1', 'acc_t2')]))
  return judged


def count_verdicts(judgements: list[dict]) -> str:
  """Sums up one claim's judgements.

  Args:
    judgements: of `judge`.

  Returns:
    Text such as 'held 5, not separated 2'; '' if there is nothing to count.
  """
  verdicts = [j['verdict'] for j in judgements]
  words = (HELD, NOT_SEPARATED, REVERSED, DID_NOT_HOLD, NOT_MEASURED)
  return ', '.join(f'{word} {verdicts.count(word)}' for word in words if word in verdicts)
