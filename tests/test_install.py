"""The package installs lean: no TensorFlow, no torch, quick to import, nothing undeclared."""

import ast
import functools
import importlib.metadata
import importlib.util
import re
import sys
import time

import pytest
from makers import ROOT

MAX_IMPORT_S = 3.0
MODULES = ['score_jax', 'score_jax.main', 'score_jax.quickstart']
# Needed by a requirement that does not declare it everywhere (setup.py says by which).
# Both are what TFDS needs to prepare and read its array_record files.
NEEDED_BY_OTHERS = {'importlib_resources', 'array_record'}


def requirements():
  """INSTALL_REQUIRES of setup.py, as normalised names: {'jax', 'orbax_checkpoint', ...}."""
  for node in ast.parse((ROOT / 'setup.py').read_text(encoding='utf-8')).body:
    if isinstance(node, ast.Assign) and node.targets[0].id == 'INSTALL_REQUIRES':
      lines = ast.literal_eval(node.value)
      return {normalise(re.match(r'[\w.-]+', line).group()) for line in lines}
  raise AssertionError('setup.py has no INSTALL_REQUIRES')


def normalise(name):
  """One spelling for a distribution's name: `Orbax-Checkpoint` is `orbax_checkpoint`."""
  return re.sub(r'[-_.]+', '_', name).lower()


def imported_modules():
  """Every module from outside that a file of the package imports, with one file that does."""
  found = {}
  for path in sorted((ROOT / 'score_jax').rglob('*.py')):
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
      if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom):
        # `from orbax import checkpoint` names a module of a namespace package: keep both parts.
        names = [f'{node.module}.{alias.name}' for alias in node.names]
      else:
        continue
      found |= {name: path.relative_to(ROOT) for name in names}
  own = {*sys.stdlib_module_names, 'score_jax', '__future__'}
  return {name: path for name, path in found.items() if name.split('.')[0] not in own}


@functools.cache
def packages():
  """The names of the distributions of each module; it reads what is installed, all of it."""
  return importlib.metadata.packages_distributions()


def distributions(name):
  """The installed distributions that a module can come from, normalised."""
  return {normalise(d) for d in packages()[name.split('.')[0]]}


def test_every_import_is_a_requirement():
  required = requirements()
  for name, path in imported_modules().items():
    assert distributions(name) & required, f'{path} imports {name}, which setup.py does not require'


def test_every_requirement_is_imported():
  used = set().union(*map(distributions, imported_modules()))
  assert not requirements() - used - NEEDED_BY_OTHERS, 'required in setup.py, imported nowhere'


@pytest.mark.parametrize('module', MODULES)
def test_import_is_lean(module, run_python, tmp_path):
  """Neither TensorFlow nor torch is imported even where they are installed, and it takes < 3 s.

  Empty stand-ins on the path are the installed packages: some libraries import torch if they can.
  """
  if importlib.util.find_spec(module) is None:
    pytest.skip(f'there is no {module}')
  for heavy in ('tensorflow', 'torch'):
    (tmp_path / heavy).mkdir()
    (tmp_path / heavy / '__init__.py').touch()
  code = f'import {module}, sys; print(sorted({{"tensorflow", "torch"}} & set(sys.modules)))'
  seconds = []
  for _ in range(3):
    start = time.monotonic()
    result = run_python('-W', 'error', '-c', code, PYTHONPATH=str(tmp_path))
    seconds.append(time.monotonic() - start)
    assert result.returncode == 0, result.stderr
    assert result.stdout == '[]\n', f'{module} imports {result.stdout}'
    if seconds[-1] < MAX_IMPORT_S:
      return
  raise AssertionError(f'importing {module} took {seconds} s; at most {MAX_IMPORT_S} is fine')


def test_import_is_lean_can_fail(run_python, tmp_path):
  """The stand-ins are found: an import of one shows."""
  (tmp_path / 'torch').mkdir()
  (tmp_path / 'torch' / '__init__.py').touch()
  code = 'import torch, sys; print("torch" in sys.modules, torch.__file__)'
  result = run_python('-c', code, PYTHONPATH=str(tmp_path))
  assert result.stdout.split() == ['True', str(tmp_path / 'torch' / '__init__.py')]


def test_the_tasks_import_no_jax(run_python):
  """A grader's worker process never imports jax, not even through the folders below."""
  files = sorted((ROOT / 'score_jax' / 'tasks').glob('*.py'))
  modules = [f'score_jax.tasks.{file.stem}' for file in files if file.stem != '__init__']
  modules += ['score_jax.tasks.math_checker.equality', 'score_jax.tasks.workers.main']
  if not modules:
    pytest.skip('there are no tasks yet')
  code = f'import {", ".join(modules)}, sys; print("jax" in sys.modules)'
  result = run_python('-W', 'error', '-c', code)
  assert result.returncode == 0, result.stderr
  assert result.stdout == 'False\n', 'score_jax/tasks imports jax, itself or through another folder'


def test_the_version_is_one():
  """`import score_jax` and the installed package name the same version, if it is installed."""
  import score_jax

  assert re.fullmatch(r'\d+\.\d+\.\d+', score_jax.__version__)
  try:
    installed = importlib.metadata.version('score_jax')
  except importlib.metadata.PackageNotFoundError:
    pytest.skip('score_jax runs from its folder and is not installed')
  assert installed == score_jax.__version__
