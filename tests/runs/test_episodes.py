"""The episodes of a run: all are found, what is left out is said, broken ones are named."""

import json
import re
import shutil

import pytest
from makers import episode, write_episodes

from score_jax.runs import episodes_page
from score_jax.runs.episodes import choose, describe, missing_records, read_sources, share_out
from score_jax.runs.metrics import MetricsLog
from score_jax.runs.segments import SegmentedLog


def test_reads_training_newest_first_and_evaluations(tmp_path):
  run = write_episodes(tmp_path)
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
  run = write_episodes(tmp_path, answers=['x 4', 'y 4'], rewards=[0.0, 0.0], finals=['4', '4'])
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
  sources = read_sources(write_episodes(tmp_path, num_steps=4, num_records=9))
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
  run = write_episodes(tmp_path)
  assert describe(run) == [
    'Run: stage stage2, task sums, seed 3.',
    'Training saved the episodes of 2 of 64 problems, at step 1 and every multiple of 10: of the'
    ' others it kept no text.',
  ]
  (run / 'row.json').write_text('{"row": "score", "seed": 5}')
  assert describe(run)[0] == 'Run: stage stage2, task sums, row score, seed 5.'
  assert describe(run / 'eval_greedy') == []


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


@pytest.mark.parametrize('first', [1, 2, 3])
def test_a_lost_segment_is_named_and_the_others_are_read(tmp_path, first):
  metrics = MetricsLog(tmp_path)
  episodes = SegmentedLog(tmp_path / 'episodes', 'process0000')
  for log in (metrics, episodes):
    log.rewind(0)
  for step in (1, 2, 3):
    metrics.write(step, {'train/reward_t1': 0.5})
    episodes.append({'step': step} | episode())
    for log in (metrics, episodes):
      log.cut(step)
  assert missing_records(tmp_path) == []
  lost = [
    tmp_path / 'metrics' / f'metrics-{first:08d}.jsonl',
    tmp_path / 'episodes' / f'process0000-{first:08d}.jsonl',
  ]
  for path in lost:
    path.unlink()
  told = [f'{path} is missing, with 1 record from step {first} on' for path in lost]
  assert missing_records(tmp_path) == told
  steps = [e['step'] for e in read_sources(tmp_path)['training']]
  assert steps == [step for step in (3, 2, 1) if step != first]
  for path in (tmp_path / 'episodes').glob('*.jsonl'):
    path.unlink()
  assert read_sources(tmp_path) == {} and len(missing_records(tmp_path)) == 4
  shutil.rmtree(tmp_path / 'metrics')
  assert missing_records(tmp_path)[0] == f'{tmp_path / "metrics"} is missing'


def test_damaged_lines_are_named(tmp_path):
  run = write_episodes(tmp_path)
  path = run / 'eval_greedy' / 'records.jsonl'
  path.write_text(path.read_text() + '{"half')
  with pytest.raises(ValueError, match='records.jsonl:6: not JSON'):
    read_sources(run)
