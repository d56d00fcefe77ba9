"""Logs of a run: segments, metrics and verdicts, killed or not, read back."""

import json
import math
import struct

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from etils import epath
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from score_jax.runs import events, files, metrics, segments, verdicts


def listing(directory):
  return {path.name: path.read_text() for path in sorted(epath.Path(directory).iterdir())}


def write_run(directory, steps, save_every=5, start=0, log=None):
  """Appends a record per step and cuts where a checkpoint would be; returns the log."""
  log = log or segments.SegmentedLog(directory, 'm', flush_every_s=0)
  log.rewind(start - 1)
  for step in range(start, steps):
    log.append({'step': step, 'value': step * step})
    if step % save_every == 0:
      log.cut(step)
  return log


def test_write_atomic_replaces_whole_files_and_leaves_no_litter(tmp_path):
  path = tmp_path / 'deep' / 'file.txt'
  (tmp_path / 'deep').mkdir()
  (tmp_path / 'deep' / '.file.txt.tmp').write_text('half of what a killed process wro')
  files.write_atomic(path, 'a longer first text')
  files.write_atomic(path, 'short')
  assert listing(tmp_path / 'deep') == {'file.txt': 'short'}


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
  assert list(listing(tmp_path)) == names
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
  assert list(listing(tmp_path))[-1] == 'm-00000008.jsonl'


def test_a_record_of_a_later_step_goes_to_the_next_segment(tmp_path):
  log = segments.SegmentedLog(tmp_path, 'm', flush_every_s=0)
  log.append({'step': 4})
  log.append({'step': 6})
  log.cut(5)
  log.flush()
  assert {n: json.loads(t)['step'] for n, t in listing(tmp_path).items()} == {
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
  assert list(listing(tmp_path)) == ['m-00000006.jsonl']


def test_a_broken_line_is_named_by_file_and_line(tmp_path):
  (tmp_path / 'm-00000000.jsonl').write_text('{"step": 0}\n{"step": 1\n')
  with pytest.raises(ValueError, match=r'm-00000000\.jsonl:2: not a line of JSON'):
    segments.read_segments(tmp_path, 'm')
  (tmp_path / 'm-00000000.jsonl').write_text('{"step": 0}\n[1]\n')
  with pytest.raises(ValueError, match=r'm-00000000\.jsonl:2: a record needs'):
    segments.read_segments(tmp_path, 'm')


def make_event_class():
  """Builds the message classes from TensorFlow's event.proto and summary.proto, as published."""
  field = descriptor_pb2.FieldDescriptorProto
  file = descriptor_pb2.FileDescriptorProto(name='of_a_test.proto', package='of_a_test')
  for name, fields in {
    'Value': [('tag', 1, field.TYPE_STRING), ('simple_value', 2, field.TYPE_FLOAT)],
    'Summary': [('value', 1, '.of_a_test.Value')],
    'Event': [
      ('wall_time', 1, field.TYPE_DOUBLE),
      ('step', 2, field.TYPE_INT64),
      ('file_version', 3, field.TYPE_STRING),
      ('summary', 5, '.of_a_test.Summary'),
    ],
  }.items():
    message = file.message_type.add(name=name)
    for key, number, kind in fields:
      nested = isinstance(kind, str)
      message.field.add(
        name=key,
        number=number,
        type=field.TYPE_MESSAGE if nested else kind,
        type_name=kind if nested else None,
        label=field.LABEL_REPEATED if key == 'value' else field.LABEL_OPTIONAL,
      )
  pool = descriptor_pool.DescriptorPool()
  pool.Add(file)
  return message_factory.GetMessageClass(pool.FindMessageTypeByName('of_a_test.Event'))


def read_events(path):
  """Reads {(tag, step): (value, wall time)} with protobuf's own parser."""
  event_class = make_event_class()
  data, found, at = path.read_bytes(), {}, 0
  while at < len(data):
    length, length_crc = struct.unpack_from('<QI', data, at)
    body = data[at + 12 : at + 12 + length]
    [body_crc] = struct.unpack_from('<I', data, at + 12 + length)
    assert length_crc == events.masked_crc32c(data[at : at + 8])
    assert body_crc == events.masked_crc32c(body)
    event = event_class.FromString(body)
    assert event.file_version == ('' if at else 'brain.Event:2')
    for value in event.summary.value:
      found[value.tag, event.step] = (value.simple_value, event.wall_time)
    at += length + 16
  return found


@pytest.mark.parametrize(
  'data, crc',
  [  # RFC 3720, B.4
    (bytes(32), 0x8A9136AA),
    (b'\xff' * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
  ],
)
def test_crc32c_of_the_standard(data, crc):
  assert events.masked_crc32c(data) == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def test_event_files_hold_negative_steps_and_numbers_beyond_float32(tmp_path):
  path = tmp_path / 'tfevents'
  rows = [(1.5, -1, {'a/b': 1e300, 'c': True}), (2.5, 300, {'é': -0.5})]
  path.write_bytes(events.event_file(rows))
  assert read_events(path) == {
    ('a/b', -1): (float(np.finfo(np.float32).max), 1.5),
    ('c', -1): (1.0, 1.5),
    ('é', 300): (-0.5, 2.5),
  }


def test_metrics_come_back_from_json_lines_and_from_tensorboard(tmp_path):
  log = metrics.MetricsLog(tmp_path)
  log.rewind(-1)
  for step in range(4):
    log.write(step, {'train/loss': jnp.float32(step / 4), 'eval/acc_t1': np.nan, 'time/step_s': 1})
    if step == 2:
      log.cut(step)
  log.close()
  records = metrics.read_metrics(tmp_path)
  assert [r['train/loss'] for r in records] == [0, 0.25, 0.5, 0.75]
  assert all(r['eval/acc_t1'] is None for r in records)
  paths = sorted((tmp_path / 'tensorboard').iterdir())
  assert [p.name.split('.')[3] for p in paths] == ['00000000', '00000003']
  found = read_events(paths[0]) | read_events(paths[1])
  assert {k: v[0] for k, v in found.items() if k[0] == 'train/loss'} == {
    ('train/loss', s): s / 4 for s in range(4)
  }
  assert not any(tag == 'eval/acc_t1' for tag, _ in found)
  assert math.isclose(found['train/loss', 3][1], records[3]['time/unix_s'])


def test_resumed_metrics_rewrite_their_event_files(tmp_path):
  def run(start, stop):
    log = metrics.MetricsLog(tmp_path)
    log.rewind(start - 1)
    for step in range(start, stop):
      log.write(step, {'train/loss': step + 100 * (start > 0)})
      if step % 5 == 0:
        log.cut(step)
    log.close()

  run(0, 14)
  run(6, 12)
  steps = {}
  for path in sorted((tmp_path / 'tensorboard').iterdir()):
    steps |= {k[1]: v[0] for k, v in read_events(path).items() if k[0] == 'train/loss'}
  assert steps == {s: s + 100 * (s > 5) for s in range(12)}


def test_only_process_0_writes_and_metrics_are_numbers(tmp_path):
  other = metrics.MetricsLog(tmp_path / 'other', process_index=1)
  other.rewind(-1)
  other.write(0, {'train/loss': 1.0})
  other.cut(0)
  other.close()
  assert not (tmp_path / 'other').exists()
  log = metrics.MetricsLog(tmp_path)
  with pytest.raises(ValueError, match='train/kl of step 2 must be one number'):
    log.write(2, {'train/kl': np.zeros(2)})


def test_verdicts_of_each_process_are_kept_until_dropped(tmp_path):
  mine, other = verdicts.VerdictStore(tmp_path, 0), verdicts.VerdictStore(tmp_path, 1)
  assert mine.get(1) is None
  mine.drop_through(5)
  for step in (1, 2, 10):
    mine.put(step, np.full((2, 2), step))
  other.put(1, {'rows': [None, 0.5]})
  mine.drop_through(2)
  assert [mine.get(step) for step in (1, 2, 10)] == [None, None, [[10, 10], [10, 10]]]
  assert verdicts.VerdictStore(tmp_path, 1).get(1) == {'rows': [None, 0.5]}


def test_a_damaged_verdict_is_named(tmp_path):
  store = verdicts.VerdictStore(tmp_path)
  store.put(3, [1])
  [path] = (tmp_path / 'verdicts').iterdir()
  path.write_text('{"step": 3, "verd')
  with pytest.raises(ValueError, match=rf'{path.name} is damaged .*delete it'):
    store.get(3)
  path.write_text('{"step": 4, "verdicts": []}')
  with pytest.raises(ValueError, match='does not hold the verdicts of step 3'):
    store.get(3)
