"""The page of episodes: what it holds, what it leaves out and says so, and that no text escapes."""

import base64
import hashlib
import html.parser
import json
import re

import pytest

from score_jax.runs import episodes_page
from score_jax.runs.episodes import choose, describe, read_sources, share_out
from score_jax.runs.segments import SegmentedLog

HOSTILE = (
  '</script><script>alert(1)</script><!-- <script> <img src=x onerror=alert(1)> & "a" \'b\' '
  '\u2028\u2029\x00\ud800\u202e {{DATA}} {{HASH}} ${x} `\\u003c'
)


class Reader(html.parser.HTMLParser):
  """Collects what a browser would make of a page: elements, their attributes, scripts, texts."""

  def __init__(self, source):
    super().__init__()
    self._inside = None
    self.tags, self.scripts, self.attributes, self.texts = [], [], [], {}
    self.feed(source)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += [(tag, name, value) for name, value in attrs]
    self._inside = tag

  def handle_data(self, data):
    if self._inside == 'script':
      self.scripts.append(data)
      self._inside = None
    else:
      self.texts.setdefault(self._inside, data)


def read_page(source):
  """The page's data, and its reader."""
  reader = Reader(source)
  data, _ = reader.scripts
  return json.loads(data), reader


def episode(answers=('= 4', '= 5'), rewards=(0.0, 1.0), **more):
  num_turns = len(answers)
  return {
    'source': 'training',
    'number': 1,
    'problem': 7,
    'question': '2 + 3?',
    'answer': '5',
    'answers': list(answers),
    'rewards': list(rewards),
    'reasons': ['graded'] * num_turns,
    'truncated': [False] * num_turns,
    **more,
  }


def write_run(run, num_steps=3, num_records=5, **more):
  """A run directory with two training episodes a step and one evaluation."""
  log = SegmentedLog(run / 'episodes', 'process0000')
  for step in range(1, num_steps + 1):
    for problem in (0, 1):
      log.append({'step': step} | episode(problem=problem, **more))
  log.flush()
  (run / 'config.json').write_text(
    json.dumps(
      {
        'seed': 3,
        'stage': {'name': 'stage2'},
        'task': {'name': 'sums'},
        'train': {'episodes_every_steps': 10, 'num_saved_problems': 2},
        'rollout': {'problems_per_step': 64},
      }
    )
  )
  records = [
    episode(id=i, level=str(i % 2), finals=['4', '5'], tokens=[3, 3]) for i in range(num_records)
  ]
  for record in records:
    del record['problem']
  (run / 'eval_greedy').mkdir()
  lines = ''.join(json.dumps(record) + '\n' for record in records)
  (run / 'eval_greedy' / 'records.jsonl').write_text(lines)
  return run


def joined(pieces):
  return ''.join(text for _, text in pieces)


def marked(pieces, mark):
  return [text for kind, text in pieces if kind & mark]


def test_differences_of_two_answers_by_hand():
  one, two = episodes_page.mark_differences(['So 6 x 7 = 41.\nDone', 'So 6 x 7 = 42.\nAll done'])
  assert one == [[0, 'So 6 x 7 = '], [1, '41'], [0, '.\n'], [1, 'Done']]
  assert two == [[0, 'So 6 x 7 = '], [2, '42'], [0, '.\n'], [2, 'All done']]


def test_indentation_and_line_ends_are_kept_and_compared():
  before, after = 'if x:\n    y = 1\n\ty', 'if x:\n  y = 1\n\ty'
  one, two = episodes_page.mark_differences([before, after])
  assert (joined(one), joined(two)) == (before, after)
  assert marked(one, episodes_page.GONE) == ['\n    ']
  assert marked(two, episodes_page.NEW) == ['\n  ']


def test_middle_answer_is_compared_with_both_neighbours():
  pieces = episodes_page.mark_differences(['a b c', 'a X c', 'a Y c', 'a Y d'])
  assert pieces == [
    [[0, 'a '], [1, 'b'], [0, ' c']],
    [[0, 'a '], [3, 'X'], [0, ' c']],
    [[0, 'a '], [2, 'Y'], [0, ' '], [1, 'c']],
    [[0, 'a Y '], [2, 'd']],
  ]


@pytest.mark.parametrize(
  'answers',
  [
    [],
    ['one answer only'],
    ['', 'now something'],
    ['same text', 'same text'],
    [HOSTILE, HOSTILE + ' and more', ''],
    ['the a the ' * 700, 'a the the ' * 650],  # a model in a loop must not take minutes
  ],
)
def test_what_is_not_marked_is_common_to_both(answers):
  """Whatever is marked, no text is lost, and the rest of two neighbours is the same words."""
  pieces = episodes_page.mark_differences(answers)
  assert [joined(turn) for turn in pieces] == answers
  for before, after in zip(pieces[:-1], pieces[1:], strict=True):
    stays = joined(piece for piece in before if not piece[0] & episodes_page.GONE)
    kept = joined(piece for piece in after if not piece[0] & episodes_page.NEW)
    assert stays == kept
  if len(set(answers)) == 1:
    assert all(mark == 0 for turn in pieces for mark, _ in turn)


def test_final_changes_go_by_stored_finals():
  texts = episode(['so 1/2', 'it is 1/2', 'so 1/2'], [1, 1, 1])
  assert episodes_page.final_changes(texts) == ['unknown', 'unknown']
  stored = texts | {'finals': ['1/2', '1/2', None]}
  assert episodes_page.final_changes(stored) == ['no', 'yes']
  assert episodes_page.final_changes(episode(['a', 'a'], [0, 0])) == ['no']
  assert episodes_page.final_changes(episode(['only'], [0])) == []


def test_page_is_one_file_that_runs_only_its_own_script():
  source = episodes_page.page([episode()], 'Title', ['A note.'])
  data, reader = read_page(source)
  assert data['notes'] == ['A note.']
  assert reader.texts['title'] == reader.texts['h1'] == 'Title'
  assert not {'link', 'img', 'iframe', 'object', 'base'} & set(reader.tags)
  names = {name for _, name, _ in reader.attributes}
  assert not names & {'src', 'href', 'srcset', 'action', 'onload', 'onclick', 'onerror'}
  assert not re.search(r'url\(|@import|https?:', source)
  (policy,) = [
    value for tag, name, value in reader.attributes if tag == 'meta' and 'default-src' in value
  ]
  script = reader.scripts[1]
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  assert "default-src 'none'" in policy
  assert f"script-src 'sha256-{digest}'" in policy
  assert '{{' not in source
  # The script makes text nodes; none of these would.
  assert not re.search(r'innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(', script)


def test_hostile_texts_stay_text():
  harmless = episodes_page.page([episode()], 'Title')
  texts = [HOSTILE, HOSTILE + '\n  indented']
  one = episode(texts, question=HOSTILE, answer=HOSTILE, level=HOSTILE, source=HOSTILE)
  one |= {'reasons': [HOSTILE] * 2, 'finals': [HOSTILE, None]}
  source = episodes_page.page([one], HOSTILE, [HOSTILE])
  assert Reader(source).tags == Reader(harmless).tags
  source.encode('utf-8')  # half of a surrogate pair could not be written
  assert '\u2028' not in source and '\u2029' not in source
  data, reader = read_page(source)
  assert '<' not in reader.scripts[0]
  (shown,) = data['episodes']
  assert [joined(turn) for turn in shown['pieces']] == texts
  assert shown['question'] == shown['answer'] == shown['level'] == HOSTILE
  assert shown['reasons'] == [HOSTILE] * 2 and shown['finals'] == [HOSTILE, None]
  assert data['notes'] == [HOSTILE]


def test_reads_training_newest_first_and_evaluations(tmp_path):
  run = write_run(tmp_path)
  later = SegmentedLog(run / 'episodes', 'process0001')
  later.append({'step': 2} | episode(problem=9))
  later.flush()
  sources = read_sources(run)
  assert list(sources) == ['training', 'eval_greedy']
  assert [e['step'] for e in sources['training']] == [3, 3, 2, 2, 2, 1, 1]
  assert [e['problem'] for e in sources['training']] == [0, 1, 0, 1, 9, 0, 1]
  assert sorted(e['number'] for e in sources['training']) == [1, 2, 3, 4, 5, 6, 7]
  assert [(e['number'], e['problem']) for e in sources['eval_greedy']] == [
    (i + 1, i) for i in range(5)
  ]
  assert sources['training'][0]['finals'] is None
  assert sources['eval_greedy'][0]['finals'] == ['4', '5']


def test_finals_of_training_are_taken_where_they_are(tmp_path):
  run = write_run(tmp_path, answers=['x 4', 'y 4'], rewards=[0.0, 0.0], finals=['4', '4'])
  assert {
    e['source']: episodes_page.final_changes(e)
    for source in read_sources(run).values()
    for e in source
  } == {'training': ['no'], 'eval_greedy': ['yes']}


@pytest.mark.parametrize(
  ('sizes', 'limit', 'want'),
  [
    ([96, 2048, 2048], 2000, [96, 952, 952]),
    ([96, 2048, 2048], 5000, [96, 2048, 2048]),
    ([10, 3], 5, [3, 2]),
    ([10, 10, 10], 4, [1, 1, 2]),
    ([10, 10], 1, [0, 1]),
  ],
)
def test_share_out(sizes, limit, want):
  assert list(share_out(dict(enumerate(sizes)), limit).values()) == want


def test_limit_takes_the_newest_and_spreads_an_evaluation_and_says_so(tmp_path):
  sources = read_sources(write_run(tmp_path, num_steps=4, num_records=9))
  episodes, notes = choose(sources, 6)
  assert [e['step'] for e in episodes if e['source'] == 'training'] == [4, 4, 3]
  assert [e['problem'] for e in episodes if e['source'] == 'eval_greedy'] == [0, 3, 6]
  assert notes == [
    'training: 3 of 8 episodes, the newest; 5 left out.',
    'eval_greedy: 3 of 9 episodes, evenly spread over its problems; 6 left out.',
    'The page holds 6 episodes at most; --limit=0 shows all.',
  ]
  everything, notes = choose(sources, 0)
  assert len(everything) == 17
  assert notes == ['training: 8 of 8 episodes.', 'eval_greedy: 9 of 9 episodes.']


def test_describes_a_run_by_what_it_says_of_itself(tmp_path):
  run = write_run(tmp_path)
  assert describe(run) == [
    'Run: stage stage2, task sums, seed 3.',
    'Training saved the episodes of 2 of 64 problems, at step 1 and every multiple of 10: of the'
    ' others it kept no text.',
  ]
  (run / 'row.json').write_text('{"row": "score", "seed": 5}')
  assert describe(run)[0] == 'Run: stage stage2, task sums, row score, seed 5.'
  assert describe(run / 'eval_greedy') == []


def test_command_writes_the_page(run_python, tmp_path):
  run = write_run(tmp_path)
  done = run_python('-m', 'score_jax.episodes', f'--run={run}')
  assert done.returncode == 0, done.stderr
  assert f'11 episodes in {run}/episodes.html' in done.stdout
  data, _ = read_page((run / 'episodes.html').read_text(encoding='utf-8'))
  assert [e['source'] for e in data['episodes']] == ['training'] * 6 + ['eval_greedy'] * 5
  assert data['episodes'][0]['step'] == 3 and 'answers' not in data['episodes'][0]
  done = run_python('-m', 'score_jax.episodes', f'--run={run}', f'--output={run}/x/y.html')
  assert done.returncode == 0 and (run / 'x' / 'y.html').exists()


def test_command_tells_what_is_wrong(run_python, tmp_path):
  run = tmp_path / 'work' / 'score' / 'seed0'
  run.mkdir(parents=True)
  write_run(run)
  for flags, message in {
    (): '--run is not set',
    ('--run=/nowhere',): '--run=/nowhere is not a directory',
    (f'--run={run}', '--limit=-1'): '--limit=-1 is below 0',
    (f'--run={run / "eval_greedy"}',): 'holds no episodes: neither',
    (f'--run={tmp_path / "work"}',): f'these do:\n  {run}',
  }.items():
    done = run_python('-m', 'score_jax.episodes', *flags)
    assert done.returncode == 2 and message in done.stderr and 'Traceback' not in done.stderr
  assert not list(tmp_path.rglob('*.html'))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'answers': None}, "records.jsonl:1: an episode needs 'answers'"),
    ({'id': None, 'problem': None}, "needs 'problem'"),
    ({'answers': ['a', 3]}, "'answers' should be a list of"),
    ({'rewards': 'ab'}, "'rewards' should be a list of"),
    ({'rewards': [1.0]}, 'one entry for each turn'),
  ],
)
def test_broken_records_are_named(tmp_path, change, message):
  (tmp_path / 'eval_x').mkdir()
  (tmp_path / 'eval_x' / 'records.jsonl').write_text(json.dumps(episode() | change) + '\n')
  with pytest.raises(ValueError, match=re.escape(message)):
    read_sources(tmp_path)


def test_damaged_lines_are_named(tmp_path):
  run = write_run(tmp_path)
  path = run / 'eval_greedy' / 'records.jsonl'
  path.write_text(path.read_text() + '{"half')
  with pytest.raises(ValueError, match='records.jsonl:6: not JSON'):
    read_sources(run)
