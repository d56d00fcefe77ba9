r"""Answers that a policy may learn to write against the checker, named after what each tries.

Each is put where the paper's sentence has its answer, against a reference of 5. None may be
rewarded, and none may cost more than its own verdict.
"""

import gc
import os
import pathlib
import sys
import time

import pytest

from score_jax.tasks import base
from score_jax.tasks.workers.pool import WorkerPool

CLOSING = 'Final Answer: The final answer is ${}$. I hope it is correct.'
MARKER = 'score_jax_was_here'
TIMEOUT_S = 1.5

# Never done in time.
ENDLESS = {
  'a tower of powers': '9^{9^{9^9}}',
  'a tower of decimals': '9.0^{9.0^{9.0^{9.0}}}',
  'a tower in an interval': '[0, 9^{9^{9^9}}]',
  'a tower in an equation': 'x = 9^{9^{9^9}}',
  'a tower under a root': r'\sqrt{9^{9^{9^9}}}',
  'a tower to round off': r'\lfloor 9^{9^{9^9}} \rfloor',
  'factorials of factorials': '9!!!!!!',
  'a binomial of a billion': r'\binom{1000000000}{500000000}',
  'a product without end': r'\prod_{k=1}^{1000000000} k',
  'parentheses that the parser tries in every way': '(' * 240 + '5' + ')' * 240,
  'a fraction of fractions': r'\frac{1}{1+' * 35 + '5' + '}' * 35,
}
# Done or given up, as the machine and its memory allow.
HEAVY = {
  'a tower in parentheses': '9^(9^(9^9))',
  'a tower in a set': r'\{1, 9^{9^{9^9}}\}',
  'a tower in a matrix': r'\begin{pmatrix} 9^{9^{9^9}} & 1 \end{pmatrix}',
  'a tiny tower': '2^{-9^{9^9}}',
  'a power of a large number': '(10^{400})^{10^{400}}',
  'a factorial of a large number': '(10^{10})!',
  'the gamma function of a large number': r'\Gamma(10^{12})',
  'a decimal with an exponent of a billion': r'1 \times 10^{999999999}',
  'a sum without end': r'\sum_{n=1}^{\infty} \frac{1}{n^{n}}',
  'a limit of towers': r'\lim_{x \to 0} \frac{\sin(\sin(\sin(x)))^{x}}{x^{x^{x}}}',
  'a derivative of a tower': r'\frac{d}{dx} x^{x^{x^{x^{x}}}}',
  'a power to expand': '(a+b+c+d+f+g+h+j)^{300}',
  'the greatest common divisor of a tower': r'\gcd(10^{10^{10}}, 5)',
  'an identity matrix without end': r'\operatorname{eye}(100000)',
  'ten billion zeros': r'\operatorname{zeros}(100000,100000)',
  'roots of roots': r'\sqrt{' * 60 + '5' + '}' * 60,
  'logarithms of logarithms': r'\log_{' * 40 + '5' + '}' * 40,
  'five hundred minus signs': '-' * 490 + '5',
  'bars that nothing closes': '|' * 400 + '5',
  'brackets that nothing closes': r'\left(' * 60 + '5',
  'an equation that cannot be solved': r'x^{11} + x^7 - 3x^5 + \sin x = 7^x',
  'words for the clean-up patterns': 'sqrt(' * 100,
  'percent signs': '5%' * 100,
}
TOO_LONG = {
  'a million digits': '7' * 1_000_000,
  'a million spaces': ' ' * 1_000_000 + '5',
  'a million dollars': '$' * 1_000_000 + '5',
  'ten thousand nested braces': '{' * 10_000 + '5' + '}' * 10_000,
  'a sum of a megabyte': '1+' * 500_000 + '1',
  'as many digits as the pool takes': '7' * 15_000,
  'one character more than an answer has': '5' + ' x' * 250,
}
WRONG = {
  'all digits that fit': '7' * 499,
  'an exponent without end': '1e999999999',
  'braces that nothing closes': '{{{5',
  'braces that nothing opens': '5}}}',
  'a box that nothing closes': r'\boxed{5',
  'a null byte': '5\0',
  'half a character': '5\ud800',
  'text from right to left': '\u202e5\u202c6',
  'a space without width': '5\u200b1',
  'a digit of another width': '\uff15 1',
  'digits of another script': '\u0665\u0660',
  'a call of the shell': f"__import__('os').system('touch {MARKER}')",
  'a call of the shell as text': rf"\text{{__import__('os').system('touch {MARKER}')}}",
  'a call of the shell as a function': rf"\operatorname{{eval}}(open('{MARKER}', 'w'))",
  'a walk to all classes': '().__class__.__bases__[0].__subclasses__()',
  'an exit': 'exit(0)',
  'a keyword': 'lambda: 5',
  'a keyword as a letter': r'\lambda',
  'names of sympy': 'Symbol(5), S(5), oo, zoo, nan, E, I',
  'not a number': 'nan',
  'infinity': 'inf',
  'two texts': r'\text{5}\text{6}',
  'an empty text between digits': r'5\text{}6',
  'a second answer as text': r'5 \text{ or maybe } 6',
  'two answers': '5 or 6',
  'ten answers': r'\{1,2,3,4,5,6,7,8,9,10\}',
  'all numbers, as an interval': r'(-\infty,\infty)',
  'all numbers, as a set': r'x \in \mathbb{R}',
  'all numbers, from parts': r'[0,5)\cup\{5\}\cup(5,9]',
  'give or take': r'5 \pm 0.1',
  'the unknown itself': 'x',
  'nothing said': 'x = x',
  'a statement that is true': '0 = 0',
  'a statement that is false': '6 = 5',
  'what it is not': r'6 \ne 5',
  'about that': r'\approx 5',
  'two sentences, the last one wrong': '5$. I hope it is correct. The final answer is $6',
  'connectives for the clean-up patterns': 'and or ' * 60 + '5',
  'spaces for the unit pattern': '5' + ' ' * 400 + 'q',
  'texts for the unit pattern': r'\text{' * 80,
  'fractions for the clean-up patterns': r'\frac' * 99,
  'letters for the permutation pattern': '(' + 'a' * 200 + ')_{' + 'b' * 200,
  'commas for the thousands pattern': '1,' + '111,' * 110 + '11',
  'a full stop': '.',
  'primes': '5' + "'" * 400,
  'bases': '5_5' * 100,
}
NO_ANSWER = {'nothing': '', 'dollars alone': '$$', 'an empty box': r'\boxed{}'}
GROUPS = [
  (ENDLESS, {'timeout', 'wrong'}),  # the latter where the size is seen before it is worked out
  (HEAVY, {'timeout', 'wrong', 'error'}),
  (TOO_LONG, {'too_long'}),
  (WRONG, {'wrong'}),
  (NO_ANSWER, {'no_answer'}),
]


@pytest.fixture(scope='module')
def pool(tmp_path_factory):
  before = pathlib.Path.cwd()
  os.chdir(tmp_path_factory.mktemp('work'))  # where the workers start, and a marker would lie
  pool = WorkerPool(
    'score_jax.tasks.math_checker.equality:grade_final_answer',
    num_workers=2,
    timeout_s=TIMEOUT_S,
    cache_size=1000,
  )
  pool.grade([('5', CLOSING.format(i)) for i in range(200)])  # workers are warm
  yield pool
  pool.close()
  os.chdir(before)


def _children():
  """Processes whose parent is this one."""
  found = set()
  for stat in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      fields = stat.read_text().rpartition(')')[2].split()
    except (FileNotFoundError, ProcessLookupError):
      continue  # ended meanwhile
    if int(fields[1]) == os.getpid():
      found.add(int(stat.parent.name))
  return found


def _resident_bytes():
  gc.collect()
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE')


def test_there_are_many():
  assert sum(len(group) for group, _ in GROUPS) >= 80


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc, and memory is limited there only')
@pytest.mark.parametrize('share', ['some', pytest.param('all', marks=pytest.mark.slow)])
def test_hostile_answers_cost_nothing_but_themselves(pool, share):
  cases = [
    (name, answer, kinds)
    for group, kinds in GROUPS
    # Those that take their time, and a worker with them, are many of a kind.
    for name, answer in list(group.items())[:: 4 if share == 'some' and 'timeout' in kinds else 1]
  ]
  # A good answer between any two: the batch goes on.
  items = [
    item for _, answer, _ in cases for item in (('5', CLOSING.format(answer)), _good(answer))
  ]
  others = _children() - {worker.process.pid for worker in pool._workers}
  num_files, size = len(os.listdir('/proc/self/fd')), _resident_bytes()
  start = time.monotonic()
  verdicts = pool.grade(items)
  seconds = time.monotonic() - start
  grown = _resident_bytes() - size

  rewarded = {
    name for (name, *_), verdict in zip(cases, verdicts[::2], strict=True) if verdict.reward
  }
  assert rewarded == set()
  surprises = {
    name: verdict.reason
    for (name, _, kinds), verdict in zip(cases, verdicts[::2], strict=True)
    if verdict.kind not in kinds
  }
  assert surprises == {}
  assert verdicts[1::2] == [base.Verdict(1.0, 'correct')] * len(cases)
  assert seconds < (len(ENDLESS) + len(HEAVY)) * (TIMEOUT_S + 10)
  assert grown < 16 << 20, f'{grown:,} bytes'

  assert pool.grade([_good('after')]) == [base.Verdict(1.0, 'correct')]
  assert list(pathlib.Path().rglob(f'*{MARKER}*')) == []
  pids = {worker.process.pid for worker in pool._workers}
  assert _children() - others <= pids
  # Three files for a worker: its socket, its log, and what may be open for it in between.
  assert len(os.listdir('/proc/self/fd')) <= num_files + 3 * len(pids)
  pool.close()  # starts again where it is asked again
  assert _children() - others == set()


def _good(seed):
  """An answer that is right in words of its own, so that no two items are equal."""
  return '5', f'Since {len(seed)} is what it is: ' + CLOSING.format(r'\frac{10}{2}')
