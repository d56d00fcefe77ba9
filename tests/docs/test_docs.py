"""The documents say what the code does: keys, metrics, stages, names, links, commands, examples."""

import importlib
import inspect
import json
import pathlib
import re
import sys
from unittest import mock

import jax
import optax
import pytest
from absl import flags
from makers import ROOT, table_rows
from ml_collections import ConfigDict, config_flags

from score_jax.analysis import statistics
from score_jax.core.config import default_config, read_config
from score_jax.core.config_check import check_config
from score_jax.core.types import TrainState
from score_jax.evaluation import evaluate as evaluation
from score_jax.model.decoder import Decoder, DecoderConfig, abstract_params
from score_jax.objective import stages
from score_jax.runs.metrics import read_metrics
from score_jax.runs.segments import read_segments
from score_jax.setup import run as setup_run
from score_jax.training.supervised import TraceBatch, make_supervised_step
from score_jax.training.train import train
from score_jax.training.train_step import forward

PAGES = [
  ROOT / 'README.md',
  ROOT / 'CONTRIBUTING.md',
  *sorted((ROOT / 'docs').glob('*.md')),
]


def read(name):
  return (ROOT / name).read_text(encoding='utf-8')


def section(text, title):
  """What stands under a heading, up to the next one of any level."""
  return re.search(rf'^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)', text, re.M | re.S)[1]


# Every metric.


def general(key):
  """A metric's name as the documents write it: K for a turn, J for the turn before it."""
  key = re.sub(r'^train/graded_\w+$', 'train/graded_REASON', key)
  # 'train/c2i_t12', 'train/kl_t2_nats', 'acc_t1'
  return re.sub(r'_t\d(?=_|$)', '_tK', re.sub(r'_t\d\d$', '_tJK', key))


def documented(title):
  return {row[0].strip('`') for row in table_rows(section(read('docs/metrics.md'), title))}


def fields(name):
  """The names of a record, as the section on records lists them after the name of the file."""
  text = section(read('docs/metrics.md'), 'Records')
  return set(re.findall(r'`(\w+)`', re.search(rf'`{re.escape(name)}`(.*?)\.', text, re.S)[1]))


@pytest.fixture(scope='module')
def short_run(tiny_run, tmp_path_factory):
  """The directory of a run of two steps, each of 4 problems with 4 samples of two turns."""
  config = read_config(str(tiny_run))
  config.train.num_steps, config.objective.importance_cap = 2, 2.0  # whose metrics there are, too
  workdir = tmp_path_factory.mktemp('run')
  setup = setup_run.prepare(config)
  train(setup, workdir)
  setup.task.close()
  return workdir


def test_every_training_metric_is_documented(short_run):
  records = read_metrics(short_run)
  assert [record['step'] for record in records] == [1, 2]
  written = {general(key) for record in records for key in record}
  assert written - documented('Accelerators') == documented('Training')


def test_every_supervised_metric_is_documented():
  sizes = dict(vocab_size=5, num_layers=1, embed_dim=4, mlp_dim=4, num_heads=1, num_kv_heads=1)
  config, optimizer = DecoderConfig(**sizes, head_dim=4), optax.adam(1e-3)
  params = abstract_params(config)[0]
  step = jax.ShapeDtypeStruct((), 'int32')
  state = TrainState(step, params, jax.eval_shape(optimizer.init, params))
  is_token = jax.ShapeDtypeStruct((2, 3), bool)
  ids = jax.ShapeDtypeStruct((2, 3), 'int32')
  traces = TraceBatch(ids, ids, is_token, is_token)
  decoder = Decoder(config)
  step = make_supervised_step(lambda params, _, traces: forward(decoder, params, traces), optimizer)
  _, metrics = jax.eval_shape(step, state, {}, traces)
  assert {general(key) for key in metrics} == documented('Supervised training')


def test_every_evaluation_metric_is_documented():
  record = dict(rewards=[0, 1], tokens=[1, 1], truncated=[False] * 2, finals=['1', None])
  record |= dict(answers=['1', ''])
  metrics = statistics.summarise([record, record])
  assert {general(key) for key in metrics} == documented('Evaluation')


def test_records_have_the_documented_fields(short_run):
  for record in read_segments(short_run / 'episodes', 'process0000'):
    assert set(record) == fields('episodes/*.jsonl')
  made = inspect.getsource(evaluation.make_records)
  assert set(re.findall(r"^ +'(\w+)': ", made, re.M)) == fields('records.jsonl')


NUMBERS = {'alpha': 10.0, 'beta1': 0.01, 'beta2': 0.1, 'gamma': 0.8}


def stage_functions():
  """The functions of stages.py that make a stage, by name."""
  found = inspect.getmembers(stages, inspect.isfunction)
  return {name: f for name, f in found if f.__annotations__.get('return') is stages.Stage}


def test_every_stage_is_in_the_table():
  text = section(read('docs/algorithm.md'), 'Shaped rewards')
  rows = {row[0].strip('`'): row[1:5] for row in table_rows(text)}
  functions = stage_functions()
  assert rows.keys() == functions.keys() and len(rows) >= 5
  for name, cells in rows.items():
    wanted = inspect.signature(functions[name]).parameters
    stage = functions[name](**{key: NUMBERS[key] for key in wanted if key in NUMBERS})
    *numbers_of, reference = cells
    numbers = [tuple(float(NUMBERS.get(x, x)) for x in cell.split(', ')) for cell in numbers_of]
    assert numbers == [stage.reward_weight, stage.bonus, stage.kl_weight], name
    assert stage.reference == reference, name
    assert stage.discount == 0 and not stage.is_adaptive, f'{name}: the text says otherwise'


# Every link, name and command.


def prose(text):  # without blocks of code
  return re.sub(r'^```.*?^```', '', text, flags=re.M | re.S)


def anchors(text):
  """What GitHub makes of the headings of a page."""
  titles = re.findall(r'^#+ (.*)$', prose(text), re.M)
  return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


def link_complaints(text, folder):
  """Relative links of a page that lead nowhere."""
  complaints = []
  for link in re.findall(r'\]\(([^)\s]+)\)', prose(text)):
    if re.match(r'\w+:', link):
      continue
    name, _, anchor = link.partition('#')
    target = folder / name if name else None
    if target is not None and not target.exists():
      complaints.append(f'{link}: no such file')
    elif anchor:
      page = text if target is None else target.read_text(encoding='utf-8')
      if anchor not in anchors(page):
        complaints.append(f'{link}: no such heading')
  return complaints


def name_complaints(text):
  """Names `score_jax.x.y` that cannot be imported, and keys `config.x.y` that there are none of."""
  complaints = []
  for name in set(re.findall(r'\bscore_jax(?:\.\w+)+', text)):
    value, parts = importlib.import_module('score_jax'), name.split('.')[1:]
    try:
      while parts:
        # A package's attribute may be a module that nobody has imported yet.
        if hasattr(value, '__path__') and not hasattr(value, parts[0]):
          importlib.import_module(f'{value.__name__}.{parts[0]}')
        value = getattr(value, parts.pop(0))
    except (AttributeError, ImportError) as error:
      complaints.append(f'{name}: {error}')
  for name in set(re.findall(r'(?<![\w/.])config((?:\.\w+)+)(?![\w.=(])', text)):
    value = default_config()
    for part in name[1:].split('.') if name not in ('.json', '.md', '.py') else ():
      if part not in value:
        complaints.append(f'config{name}: no such key')
        break
      value = value[part]
      if isinstance(value, ConfigDict) and not len(value):
        break  # what is in it is data
  return complaints


def commands(text):
  """(module, flags) of each `python -m score_jax.MODULE --FLAGS` of a page."""
  text = re.sub(r'\s*\\\n\s*', ' ', text)
  found = re.findall(r"python -m (score_jax\.\w+)((?: +(?:'--[^'\n]+'|--[^\s`]+))*)", text)
  return [(module, re.findall(r"'--[^']+'|--\S+", rest)) for module, rest in found]


def command_complaints(module, arguments):
  """Flags that a program does not have, config files that do not load, keys of no config."""
  arguments = [a.strip("'").replace('=configs/', f'={ROOT}/configs/') for a in arguments]
  given = [argument for argument in arguments if re.match(r'--config[.=]', argument)]
  files = [importlib.util.find_spec(module).origin]
  cli = ROOT / 'score_jax' / 'cli'
  files += [cli / name for name in ('program.py', 'run_input.py', 'distributed.py')]
  source = ''.join(pathlib.Path(file).read_text(encoding='utf-8') for file in files)
  names = {argument[2:].partition('=')[0] for argument in arguments if argument not in given}
  names -= set(re.findall(r"(?:DEFINE_\w+|add_argument)\(\s*'(?:--)?(\w+)'", source))
  complaints = [f'{module}: no flag --{name}' for name in sorted(names)]
  if given and given[0].startswith('--config='):
    values = flags.FlagValues()
    try:
      config = read_config(given[0].removeprefix('--config='))
      # ml_collections looks for the keys in sys.argv itself.
      with mock.patch.object(sys, 'argv', ['program', *given[1:]]):
        config_flags.DEFINE_config_dict('config', config, flag_values=values)
        values(sys.argv)
      # Configs of programs that compare or pretrain have keys of their own.
      if 'rollout' in config:
        check_config(config)
    except (OSError, ValueError, AttributeError, KeyError, flags.Error) as error:
      complaints.append(f'{module}: {given}: {error}')
  return complaints


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.name)
def test_page(page):
  text = page.read_text(encoding='utf-8')
  complaints = link_complaints(text, page.parent) + name_complaints(text)
  for module, arguments in commands(text):
    complaints += command_complaints(module, arguments)
  assert not complaints, '\n'.join([page.name, *complaints])


def test_the_rules_of_a_page_can_fail():
  text = '# A title: of two\n[a](docs/none.md) [b](README.md#none) [c](#a-title-of-two) [d](#e)\n'
  assert link_complaints(text, ROOT) == [
    'docs/none.md: no such file',
    'README.md#none: no such heading',
    '#e: no such heading',
  ]
  names = '`score_jax.training.train.Trainer.save`, `config.stage.bonus`, config.json?'
  assert not name_complaints(names)
  assert (
    len(name_complaints('score_jax.training.train.Trainer.safe score_jax.trian config.boni')) == 3
  )
  text = 'python -m score_jax.main --config=configs/stage1_math.py \\\n  --config.seed=1 --dri\n'
  ((module, arguments),) = commands(text)
  assert (module, len(arguments)) == ('score_jax.main', 3)
  assert command_complaints(module, arguments) == ['score_jax.main: no flag --dri']
  assert command_complaints(module, ['--config=configs/none.py'])
  assert command_complaints(module, ['--config=configs/stage1_math.py', '--config.stage.boni=1'])


def test_examples_run(tmp_path, monkeypatch):
  text = read('docs/extending.md')
  blocks = re.findall(r'^```(\w*)\n(.*?)^```', text, re.M | re.S)
  assert {language for language, _ in blocks} == {'python'} and len(blocks) >= 6
  monkeypatch.syspath_prepend(tmp_path)
  namespace = {}
  for _, block in blocks:
    file = re.match(r'# (\w+)\.py', block)
    if file:
      (tmp_path / f'{file[1]}.py').write_text(block, encoding='utf-8')
    else:
      exec(compile(block, 'docs/extending.md', 'exec'), namespace)
  sys.modules.pop('backwards', None)
  assert max(map(len, text.splitlines())) <= 120 and len(text.splitlines()) < 170


def test_the_table_of_readme_is_that_of_the_kept_reports():
  kept = [
    json.loads((ROOT / f'docs/results/quickstart/seed{seed}/report.json').read_text())
    for seed in (0, 1, 2)
  ]
  lines = [line.split(' | ') for line in read('README.md').splitlines() if line.startswith('| ')]
  found = {cells[0][2:]: cells[1:] for cells in lines}
  for seed, report in enumerate(kept):
    for title, row in (
      ('base model', 'base'),
      ('Stage I', 'stage1'),
      ('SCoRe (Stage I, then II)', 'stage2'),
      ('plain multi-turn RL', 'multiturn_rl'),
    ):
      told = report['rows'][row]
      assert told['seeds'] == [seed]
      greedy = told['greedy']
      wanted = [greedy[key]['mean'] for key in ('acc_t1', 'acc_t2', 'delta')]
      wanted += [1 - greedy['e_plus']['mean']]
      shown = [float(cell.split(' / ')[seed]) for cell in found[title][:4]]
      assert shown == [round(100 * x, 1) for x in wanted], (title, seed)
      if row != 'base':
        ends = [end.split(' / ') for end in found[title][4].removesuffix(' |').split(' → ')]
        wanted = [told['changed_peak'], told['changed_last']]
        assert [float(end[seed]) for end in ends] == [round(100 * x, 1) for x in wanted]
