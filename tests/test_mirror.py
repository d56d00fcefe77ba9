"""Every file of the package has its file of tests, or says here where it is tested."""

import re

from makers import ROOT

TESTED_ELSEWHERE = {
  'evaluate.py': 'run by tests/cli/test_processes.py',
  'pretrain.py': 'prints and calls make_base of tests/training/test_pretraining.py',
  'planning/dry_run.py': 'printed by tests/test_main.py',
  'replication/collapse_figure.py': 'drawn by tests/replication/test_short_report.py',
  'replication/figures.py': 'drawn by tests/replication/test_report.py',
  'replication/gallery.py': 'drawn by tests/replication/test_report.py',
  'replication/sweep_figures.py': 'drawn by tests/replication/test_report.py',
  'tasks/code/candidate.py': 'runs inside the sandbox of tests/tasks/code/test_judge.py',
  'tasks/code/counting.py': 'prepares the tests of tests/tasks/code/test_judge.py',
  'tasks/code/landlock.py': 'taken away by tests/tasks/code/test_isolation.py',
  'tasks/code/namespaces.py': 'taken away by tests/tasks/code/test_isolation.py',
  'tasks/code/zygote.py': 'started by tests/tasks/code/test_isolation.py',
  'tasks/math_checker/exact.py': 'judges pairs of tests/tasks/math_checker/test_equality.py',
  'tasks/math_checker/relations.py': 'judges pairs of tests/tasks/math_checker/test_equality.py',
  'tasks/math_checker/units.py': 'judges pairs of tests/tasks/math_checker/test_equality.py',
  'tasks/workers/main.py': 'runs inside the workers of tests/tasks/workers/test_pool.py',
  'tasks/workers/process.py': 'starts the workers of tests/tasks/workers/test_pool.py',
}


def complaints(sources, tests, elsewhere):
  """What is wrong with files of the package, files of tests, and a table of exceptions."""

  def tests_of(source):
    folder, _, name = source.rpartition('/')
    return '/'.join(['tests', *folder.split('/'), f'test_{name}']).replace('//', '/')

  found = []
  for source in sources:
    if tests_of(source) not in tests and source not in elsewhere:
      found.append(f'{source} has neither {tests_of(source)} nor a line in the table')
  for source, why in elsewhere.items():
    if source not in sources:
      found.append(f'{source} stands in the table and is not there')
    elif tests_of(source) in tests:
      found.append(f'{source} stands in the table and has {tests_of(source)}')
    named = re.findall(r'tests/[\w/]+\.py', why)
    found += [f'{source}: there is no {name}' for name in named if name not in tests]
    if not named:
      found.append(f'{source}: the table names no file of tests')
  return found


def test_tests_lie_as_the_package_lies():
  package = ROOT / 'score_jax'
  sources = {p.relative_to(package).as_posix() for p in package.rglob('*.py')}
  sources = {name for name in sources if not name.endswith('__init__.py')}
  tests = {p.relative_to(ROOT).as_posix() for p in (ROOT / 'tests').rglob('test_*.py')}
  assert 'core/paths.py' in sources and 'tests/core/test_paths.py' in tests
  assert complaints(sorted(sources), tests, TESTED_ELSEWHERE) == []


def test_the_mirror_can_fail():
  sources, tests = ['main.py', 'a/x.py', 'a/b/y.py'], {'tests/test_main.py', 'tests/a/test_x.py'}
  assert complaints(sources, tests, {'a/b/y.py': 'in tests/a/test_x.py'}) == []
  assert complaints(sources, tests | {'tests/test_y.py'}, {}) == [
    'a/b/y.py has neither tests/a/b/test_y.py nor a line in the table'
  ]
  table = {'a/b/y.py': 'in tests/a/test_z.py', 'a/x.py': 'everywhere', 'z.py': 'tests/test_main.py'}
  assert complaints(sources, tests, table) == [
    'a/b/y.py: there is no tests/a/test_z.py',
    'a/x.py stands in the table and has tests/a/test_x.py',
    'a/x.py: the table names no file of tests',
    'z.py stands in the table and is not there',
  ]
