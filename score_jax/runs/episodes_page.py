"""One self-contained HTML page of episodes to read, differences between their answers marked.

The page asks for nothing beyond itself. Episodes are embedded as JSON; its script, which is
`assets/episodes.html`, makes text nodes of them and never markup, and the page's content security
policy admits that one script by its hash. Models write the texts, so they are not trusted.
"""

import base64
import collections
import difflib
import hashlib
import html
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from score_jax.runs.files import to_json

TEMPLATE = pathlib.Path(__file__).parents[1] / 'assets' / 'episodes.html'
TOKEN = re.compile(r'\s+|\w+|[^\w\s]')
# How a piece of an answer is marked; `new` and `gone` may meet in an answer between two others.
PLAIN, GONE, NEW = 0, 1, 2
# Pairs of equal words above which common words no longer line texts up: looping answers have
# thousands of one word, and every pair of them would be tried.
MAX_PAIRS = 20_000


def split_words(text: str) -> list[str]:
  """Splits a text into words, single signs and runs of white space, none left out.

  Example:
    >>> split_words('x = 12;\\n  y')
    ['x', ' ', '=', ' ', '12', ';', '\\n  ', 'y']
  """
  return TOKEN.findall(text)


def _changes(before: Sequence[str], after: Sequence[str]) -> list[list[int]]:
  """The spans [i, j, k, l] in which before[i:j] gave way to after[k:l]."""
  in_before, in_after = (
    collections.Counter(word for word in words if not word.isspace()) for words in (before, after)
  )
  pairs = sum(count * in_after[word] for word, count in in_before.items())
  matcher = difflib.SequenceMatcher(str.isspace, before, after, autojunk=pairs > MAX_PAIRS)
  spans = []
  for tag, *span in matcher.get_opcodes():
    if tag == 'equal':
      continue
    # A space between two changed words changes with them: one mark, not crumbs.
    if spans and all(word.isspace() for word in before[spans[-1][1] : span[0]]):
      spans[-1][1], spans[-1][3] = span[1], span[3]
    else:
      spans.append(list(span))
  return spans


def mark_differences(answers: Sequence[str]) -> list[list[list]]:
  """Marks in each answer what it has that the one before it has not, and what the next drops.

  Args:
    answers: the K answers of an episode.

  Returns:
    For each answer its pieces, [mark, text], none left out. A mark is a sum: 1 for
    text that is gone from the next answer, 2 for text that is new since the one before.

  Example:
    >>> for pieces in mark_differences(['It is 12.', 'So it is 13.']): print(pieces)
    [[1, 'It'], [0, ' is '], [1, '12'], [0, '.']]
    [[2, 'So it'], [0, ' is '], [2, '13'], [0, '.']]
  """
  words = [split_words(answer) for answer in answers]
  marks = [[PLAIN] * len(turn) for turn in words]
  for k in range(1, len(words)):
    for i, j, m, n in _changes(words[k - 1], words[k]):
      marks[k - 1][i:j] = [mark | GONE for mark in marks[k - 1][i:j]]
      marks[k][m:n] = [mark | NEW for mark in marks[k][m:n]]
  return [_pieces(*turn) for turn in zip(words, marks, strict=True)]


def _pieces(words: Sequence[str], marks: Sequence[int]) -> list[list]:
  """Joins neighbours with the same mark."""
  pieces = []
  for word, mark in zip(words, marks, strict=True):
    if pieces and pieces[-1][0] == mark:
      pieces[-1][1] += word
    else:
      pieces.append([mark, word])
  return pieces


def final_changes(episode: Mapping[str, Any]) -> list[str]:
  """Whether the final answer changed, from each turn to the next.

  Args:
    episode: with answers, rewards and, where they were stored, finals.

  Returns:
    K - 1 of 'yes', 'no' and 'unknown'. Without stored finals, equal texts and unequal rewards
    decide; two different texts of the same reward may end in the same final answer or not.

  Example:
    >>> final_changes({'answers': ['= 4', 'so = 4', '= 5', '= 5'], 'rewards': [0, 0, 1, 1]})
    ['unknown', 'yes', 'no']
  """
  answers, rewards, finals = (episode.get(key) for key in ('answers', 'rewards', 'finals'))
  changes = []
  for k in range(1, len(answers)):
    if finals is not None:
      changes.append('yes' if finals[k - 1] != finals[k] else 'no')
    elif answers[k - 1] == answers[k]:
      changes.append('no')
    else:
      changes.append('yes' if (rewards[k - 1] > 0) != (rewards[k] > 0) else 'unknown')
  return changes


def _shown(episode: Mapping[str, Any]) -> dict[str, Any]:
  """What the page holds of an episode: marked pieces in place of answers."""
  pieces, changed = mark_differences(episode['answers']), final_changes(episode)
  return {k: v for k, v in episode.items() if k != 'answers'} | {
    'pieces': pieces,
    'changed': changed,
  }


def page(episodes: Sequence[Mapping[str, Any]], title: str, notes: Sequence[str] = ()) -> str:
  """Makes the page.

  Args:
    episodes: in the order to show them; each with source, number (in its source), problem,
      question, answer, and with one entry a turn answers, rewards, reasons and truncated. step,
      level, finals and tokens may be left out or None.
    title: of the page.
    notes: sentences under the title, such as what is not shown.

  Returns:
    HTML that needs no other file.
  """
  data = to_json(
    {'title': title, 'notes': list(notes), 'episodes': [_shown(e) for e in episodes]},
    separators=(',', ':'),
  )
  # Inside <script> only the sign '<' could end the element or open a comment; JSON needs none.
  data = data.replace('<', '\\u003c')
  template = TEMPLATE.read_text(encoding='utf-8')
  script = template.partition('<script>')[2].partition('</script>')[0]
  digest = base64.b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode('ascii')
  # References in place of all but ASCII: half of a surrogate pair could not be written.
  title = html.escape(title).encode('ascii', 'xmlcharrefreplace').decode('ascii')
  values = {'TITLE': title, 'DATA': data, 'HASH': digest}
  # In one pass: no value is searched for the name of another.
  return re.sub(r'\{\{([A-Z]+)\}\}', lambda match: values[match[1]], template)
