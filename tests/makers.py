"""What several test files make: paths, modules by path, run directories to read.

Imported as `makers`; `pythonpath` in pyproject.toml says where it lies. What needs jax imports it
late: conftest.py imports this file before it has said how jax shall be.
"""

import importlib.util
import json
import pathlib
import struct

ROOT = pathlib.Path(__file__).resolve().parents[1]
TESTS = ROOT / 'tests'
# XLA_FLAGS of what runs for milliseconds: LLVM's optimising takes longer.
QUICK_TO_COMPILE = '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
# A run of the embedded model, which knows sums of digits only, by a config that is shipped.
SMALL_SUMS = (
  '--config=configs/stage1_sums.py',
  '--config.model.checkpoint=embedded',
  '--config.model.preset=',
  '--config.task.name=arithmetic',
  '--config.rollout.prompt_tokens=16',
  '--config.rollout.turn_tokens=(7,10)',
  "--config.task.level_weights={'5': 1.0}",
)


def load(path):
  """The module that a Python file of the repository is, such as 'docs/make_config_page.py'."""
  spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, ROOT / path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def with_flags(config, arguments):
  """A config with `--config.X=Y` of a command line, as the programs read them."""
  from absl import flags
  from ml_collections import config_flags

  import score_jax.cli.program  # says how tuples are read

  assert score_jax.cli.program.CONFIG.name == 'config'
  values, line = flags.FlagValues(), ['program', *arguments]
  config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=line)
  values(line)
  return values.config


def table_rows(text):
  """The cells of each line of the tables of a text, headings left out."""
  lines = [line for line in text.splitlines() if line.startswith('|')]
  rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
  is_rule = [set(''.join(row)) <= {'-'} for row in rows] + [False]
  return [row for i, row in enumerate(rows) if not is_rule[i] and not is_rule[i + 1]]


def _make_event_class():
  """Builds the message classes from TensorFlow's event.proto and summary.proto, as published."""
  from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

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
  """{(tag, step): (value, wall time)} of a file of events, with protobuf's own parser."""
  from score_jax.runs import events

  event_class = _make_event_class()
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


def episode(answers=('= 4', '= 5'), rewards=(0.0, 1.0), **more):
  """A record of an episode."""
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


def write_episodes(run, num_steps=3, num_records=5, **more):
  """A run directory with two training episodes a step and one evaluation."""
  from score_jax.runs.segments import SegmentedLog

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
