"""Logs in segments: cut and rewound at checkpoints, killed or not, read back."""

import json
import re

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from etils import epath

from score_jax.runs import segments


def listing(directory, pattern='*'):
  return {path.name: path.read_text() for path in sorted(epath.Path(directory).glob(pattern))}


def write_run(directory, steps, save_every=5, start=0, log=None):
  """Appends a record per step and cuts where a checkpoint would be; returns the log."""
  log = log or segments.SegmentedLog(directory, 'm', flush_every_s=0)
  log.rewind(start - 1)
  for step in range(start, steps):
    log.append({'step': step, 'value': step * step})
    if step % save_every == 0:
      log.cut(step)
  return log


def test_numbers_of_every_kind_become_valid_json(tmp_path):
  log = segments.SegmentedLog(tmp_path, 'm')
  log.append(
    {
      'step': np.int64(3),
      'nan': float('nan'),
      'inf': np.float32(np.inf),
      'jax': jnp.float32(0.1),
      'bf16': jnp.bfloat16(1.5),
      'np_bf16': ml_dtypes.bfloat16(2.5),
      'flag': np.bool_(True),
      'list': (jnp.arange(2), None),
      'text': 'line\nbreak \u2028 \ud800',
    }
  )
  log.flush()
  [path] = tmp_path.iterdir()
  assert path.name == 'm-00000000.jsonl' and path.read_bytes().count(b'\n') == 1

  def refuse(constant):
    raise AssertionError(f'{constant} is not JSON')

  json.loads(path.read_text(), parse_constant=refuse)
  assert segments.read_segments(tmp_path, 'm') == [
    {
      'step': 3,
      'nan': None,
      'inf': None,
      'jax': float(np.float32(0.1)),
      'bf16': 1.5,
      'np_bf16': 2.5,
      'flag': True,
      'list': [[0, 1], None],
      'text': 'line\nbreak \u2028 \ud800',
    }
  ]


def test_records_that_cannot_be_written_are_refused(tmp_path):
  log = segments.SegmentedLog(tmp_path, 'm')
  with pytest.raises(ValueError, match='whole number under "step"'):
    log.append({'loss': 1.0})
  with pytest.raises(ValueError, match=r'type object at "a\[1\]\.b"'):
    log.append({'step': 1, 'a': [0, {'b': object()}]})
  log.cut(10)
  with pytest.raises(ValueError, match='step 10 comes too late.*starts at step 11'):
    log.append({'step': 10})
  with pytest.raises(ValueError, match=r'cut\(9\).*already cut at 10'):
    log.cut(9)


def test_segments_begin_after_each_cut(tmp_path):
  write_run(tmp_path, 8).flush()
  names = ['m-00000000.jsonl', 'm-00000001.jsonl', 'm-00000006.jsonl']
  assert list(listing(tmp_path, '*.jsonl')) == names
  assert [r['step'] for r in segments.read_segments(tmp_path, 'm')] == list(range(8))
  assert segments.read_segments(tmp_path, 'another') == []
  assert segments.read_segments(tmp_path / 'nowhere', 'm') == []


def test_flush_makes_records_visible_and_the_timer_does_it_alone(tmp_path):
  log = segments.SegmentedLog(tmp_path, 'm', flush_every_s=1e9)
  log.append({'step': 0})
  assert segments.read_segments(tmp_path, 'm') == []
  log.flush()
  assert segments.read_segments(tmp_path, 'm') == [{'step': 0}]
  eager = segments.SegmentedLog(tmp_path, 'e', flush_every_s=0)
  eager.append({'step': 0})
  assert segments.read_segments(tmp_path, 'e') == [{'step': 0}]


@pytest.mark.parametrize(
  'restored, killed_at',
  [(restored, at) for restored in (-1, 0, 5, 10, 15) for at in range(restored + 1, 18)],
)
def test_resumed_log_equals_an_uninterrupted_one(tmp_path, restored, killed_at):
  write_run(tmp_path / 'whole', 18).flush()
  write_run(tmp_path / 'killed', killed_at)  # what was not flushed is lost
  write_run(tmp_path / 'killed', 18, start=restored + 1).flush()
  assert listing(tmp_path / 'killed') == listing(tmp_path / 'whole')


def test_rewind_shortens_a_segment_that_straddles_the_step(tmp_path):
  write_run(tmp_path, 9).flush()
  log = segments.SegmentedLog(tmp_path, 'm')
  log.rewind(7)
  assert [r['step'] for r in segments.read_segments(tmp_path, 'm')] == list(range(8))
  log.append({'step': 8})
  log.flush()
  assert list(listing(tmp_path, '*.jsonl'))[-1] == 'm-00000008.jsonl'


def test_a_record_of_a_later_step_goes_to_the_next_segment(tmp_path):
  log = segments.SegmentedLog(tmp_path, 'm', flush_every_s=0)
  log.append({'step': 4})
  log.append({'step': 6})
  log.cut(5)
  log.flush()
  assert {n: json.loads(t)['step'] for n, t in listing(tmp_path, '*.jsonl').items()} == {
    'm-00000000.jsonl': 4,
    'm-00000006.jsonl': 6,
  }
  log.cut(5)  # a save on SIGTERM right after a regular one
  log.cut(6)
  assert [r['step'] for r in segments.read_segments(tmp_path, 'm')] == [4, 6]


def test_a_cut_leaves_no_segment_behind_that_has_only_later_records(tmp_path):
  log = segments.SegmentedLog(tmp_path, 'm', flush_every_s=0)
  log.append({'step': 6})
  log.cut(5)
  log.flush()
  assert list(listing(tmp_path, '*.jsonl')) == ['m-00000006.jsonl']


def rename(path):
  path.rename(path.with_name('m-00000012.jsonl'))


def cut_off(path):
  path.write_text(''.join(path.read_text().splitlines(keepends=True)[:-1]))


LOSSES = {
  'start': (0, lambda path: path.unlink(), 'is missing, with 1 record from step 0 on'),
  'middle': (6, lambda path: path.unlink(), 'is missing, with 5 records from step 6 on'),
  'end': (16, lambda path: path.unlink(), 'is missing, with 5 records from step 16 on'),
  'renumbered': (11, rename, 'is missing, with 5 records from step 11 on'),
  'cut off': (6, cut_off, 'has 4 of 5 records'),
  'half a line': (6, lambda path: path.write_text('{"step"'), '1: not a line of JSON'),
}


@pytest.mark.parametrize('loss', LOSSES)
def test_a_lost_segment_is_named_and_the_log_goes_on(tmp_path, caplog, loss):
  write_run(tmp_path, 21).flush()
  first, lose, told = LOSSES[loss]
  path = tmp_path / f'm-{first:08d}.jsonl'
  lose(path)
  texts = [text for text in listing(tmp_path, '*.jsonl').values() if text != '{"step"']
  there = [json.loads(line) for text in texts for line in text.splitlines()]
  told = f'{path}:{told}' if loss == 'half a line' else f'{path} {told}'
  with pytest.raises(ValueError, match=re.escape(told)):
    segments.read_segments(tmp_path, 'm')
  for start in (21, 22):  # a resume says it, and a later one again
    caplog.clear()
    log = segments.SegmentedLog(tmp_path, 'm')
    log.rewind(start - 1)
    assert told in caplog.text and 'The run goes on without it' in caplog.text
    log.append({'step': start})
    log.cut(start)
    records, texts = segments.read_left(tmp_path, 'm')
    assert len(texts) == 1 and told in texts[0]
    there.append({'step': start})
    assert records == there
  log.rewind(first - 1)  # as a resume from a checkpoint before it: it is done again
  assert all(record['step'] < first for record in segments.read_segments(tmp_path, 'm'))


def test_a_folder_or_an_index_that_is_gone(tmp_path, caplog):
  write_run(tmp_path / 'new', 0, start=1)
  assert not caplog.text and not (tmp_path / 'new').exists()
  segments.SegmentedLog(tmp_path / 'lost', 'm').rewind(20)
  assert f'{tmp_path / "lost"} is missing, with the records up to step 20' in caplog.text
  caplog.clear()
  write_run(tmp_path / 'old', 11).flush()
  whole, index = listing(tmp_path / 'old'), tmp_path / 'old' / 'm.index.json'
  index.unlink()  # as in logs of earlier versions
  assert len(segments.read_segments(tmp_path / 'old', 'm')) == 11
  segments.SegmentedLog(tmp_path / 'old', 'm').rewind(10)
  assert listing(tmp_path / 'old') == whole and not caplog.text
  for text in ('{"0": ', '[1]', '{"x": 1}', '{"0": null}'):
    index.write_text(text)
    with pytest.raises(ValueError, match='m.index.json is damaged'):
      segments.read_segments(tmp_path / 'old', 'm')
    segments.SegmentedLog(tmp_path / 'old', 'm').rewind(10)
    assert 'm.index.json is damaged' in caplog.text and listing(tmp_path / 'old') == whole


def test_a_broken_line_is_named_by_file_and_line(tmp_path):
  (tmp_path / 'm-00000000.jsonl').write_text('{"step": 0}\n{"step": 1\n')
  with pytest.raises(ValueError, match=r'm-00000000\.jsonl:2: not a line of JSON'):
    segments.read_segments(tmp_path, 'm')
  (tmp_path / 'm-00000000.jsonl').write_text('{"step": 0}\n[1]\n')
  with pytest.raises(ValueError, match=r'm-00000000\.jsonl:2: a record needs'):
    segments.read_segments(tmp_path, 'm')
