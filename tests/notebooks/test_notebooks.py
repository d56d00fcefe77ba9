"""The notebooks are clean files, their install cell finds the package, and each runs to its end."""

import base64
import importlib.machinery
import importlib.util
import pathlib
import re
import sys

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from makers import ROOT
from nbclient import NotebookClient

NOTEBOOKS = ROOT / 'notebooks'
# What must be seen: by notebook and cell, the kind of output and what its text holds.
PNG, MARKDOWN, HTML, TEXT = 'image/png', 'text/markdown', 'text/html', 'text/plain'
EXPECTED = {
  'one_episode': {
    'sample': [(TEXT, 'right answer'), (MARKDOWN, 'first answer')],
    'slots': [(PNG, '')],
    'tokens': [
      (MARKDOWN, r'\| prompt \|.*\| y1 \|.*\| instruction \|.*\| y2 \|'),
      (TEXT, 'sample'),
    ],
    'shaped': [(TEXT, 'alpha = '), (MARKDOWN, r'c→i \| \d \| 0 \| 0 \| 1 \| -\d+')],
    'advantages': [(MARKDOWN, 'rloo_given_r1')],
    'score': [(TEXT, r'largest gap .* \d\.\de-0[4-9] nats'), (MARKDOWN, 'KL from the reference')],
    # Stage I rewards moving turn 2, so its KL is not 0.
    'kl': [(PNG, ''), (TEXT, r'turn 2 (0\.\d*[1-9]|[1-9])')],
    'update': [(PNG, ''), (TEXT, r'advantage times change: \+')],
  },
  'stage1_vs_multiturn': {
    'train': [(PNG, '')],
    'late': [(MARKDOWN, r'KL of turn 1 \(nats\) \| \d')],
    'evaluate': [(MARKDOWN, r'plain multi-turn RL \| \d')],
    'words': [(TEXT, 'the intervals (lie apart|overlap)')],
  },
  'ablation': {
    'curves': [(PNG, '')],
    'evaluate': [(MARKDOWN, r'\| B \| \d')],
    'paired': [(PNG, ''), (TEXT, 'delta: .* the interval (excludes|contains) 0')],
  },
  'reading_a_run': {
    'directory': [(MARKDOWN, r'config\.json')],
    'config': [(MARKDOWN, r'config\.stage\.kl_weight')],
    'metrics': [(PNG, '')],
    'episodes': [(HTML, '<b>i→c</b>: [1-9].*<td.*<b>c→i</b>: [1-9].*<td')],
    'evaluations': [(PNG, '')],
    'checkpoints': [(MARKDOWN, r'\| best'), (MARKDOWN, 'newest')],
  },
}


def read(name):
  """The notebook of that name."""
  return nbformat.read(NOTEBOOKS / f'{name}.ipynb', as_version=nbformat.NO_CONVERT)


def code_cells(notebook):
  """Its code cells, in order."""
  return [cell for cell in notebook.cells if cell.cell_type == 'code']


def complaints(notebook):
  """What is wrong with a notebook as a file, one line each."""
  found = []
  try:
    nbformat.validate(notebook)
  except nbformat.ValidationError as error:
    found.append(f'not valid: {error.message}')
  if (notebook.nbformat, notebook.nbformat_minor) != (4, 5):
    found.append(f'format {notebook.nbformat}.{notebook.nbformat_minor}, not 4.5')
  if notebook.metadata.get('kernelspec', {}).get('name') != 'python3':
    found.append('its kernel is not python3')
  cells = code_cells(notebook)
  for cell in cells:
    if cell.outputs or cell.execution_count is not None:
      found.append(f'cell {cell.id} carries an output or a count')
  if [cell.id for cell in cells[:2]] != ['install', 'workdir']:
    found.append('its first code cells are not install and workdir')
  return found


def missing_paths(notebook):
  """Files of the repository that the text names and that are not there."""
  text = '\n'.join(cell.source for cell in notebook.cells)
  paths = set(re.findall(r'\b(?:score_jax|configs|docs)/[\w/]+\.(?:py|md)\b', text))
  return sorted(path for path in paths if not (ROOT / path).exists())


def test_every_notebook_is_tested_and_listed():
  names = {path.stem for path in NOTEBOOKS.glob('*.ipynb')}
  assert names == set(EXPECTED)
  readme = (NOTEBOOKS / 'README.md').read_text(encoding='utf-8')
  assert {name for name in names if f'({name}.ipynb)' in readme} == names


@pytest.mark.parametrize('name', EXPECTED)
def test_a_notebook_is_a_clean_file(name):
  notebook = read(name)
  assert not complaints(notebook)
  assert not missing_paths(notebook)
  cells = {cell.id for cell in code_cells(notebook)}
  assert EXPECTED[name].keys() <= cells
  # One installation for all.
  assert code_cells(notebook)[0].source == code_cells(read('one_episode'))[0].source


def test_clean_file_can_fail():
  notebook = read('one_episode')
  cells = code_cells(notebook)
  cells[2].outputs = [nbformat.v4.new_output('stream', text='12')]
  cells[3].execution_count = 1
  notebook.cells.remove(cells[0])
  notebook.metadata.kernelspec.name = 'julia'
  notebook.cells[0].source += ' score_jax/objective/nowhere.py'
  assert len(complaints(notebook)) == 4
  assert missing_paths(notebook) == ['score_jax/objective/nowhere.py']
  del notebook.cells[0]['source']
  assert complaints(notebook)[0].startswith('not valid')


class Shell:
  """Stands in for IPython: writes down what the cell would have run; a clone makes a checkout."""

  def __init__(self):
    self.namespace, self.lines = {}, []

  def run_line_magic(self, name, line):
    """%pip."""
    self.lines.append(f'{name} {line.format(**self.namespace)}')

  def system(self, line):
    """!git."""
    self.lines.append(line.format(**self.namespace))
    make_checkout(pathlib.Path(self.lines[-1].split('"')[3]))


def make_checkout(folder):
  """Makes what the install cell takes for a checkout."""
  for path in ('score_jax', 'configs'):
    (folder / path).mkdir(parents=True)
  (folder / 'configs' / 'quickstart.py').touch()


def run_install_cell(monkeypatch, cwd, source='', is_installed=False):
  """Runs the install cell in a folder; returns the shell and the first entry of sys.path."""
  cell = code_cells(read('one_episode'))[0].source
  assert cell.count("SOURCE = ''") == 1
  code = TransformerManager().transform_cell(cell.replace("SOURCE = ''", f'SOURCE = {source!r}'))
  shell = Shell()
  shell.namespace['get_ipython'] = lambda: shell
  monkeypatch.chdir(cwd)
  monkeypatch.setattr(sys, 'path', ['before', *sys.path])
  if not is_installed:
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  exec(compile(code, 'install cell', 'exec'), shell.namespace)
  return shell.lines, sys.path[0]


def test_install_cell_does_nothing_where_the_package_is(monkeypatch, tmp_path):
  assert run_install_cell(monkeypatch, tmp_path, is_installed=True) == ([], 'before')


def test_install_cell_is_not_misled_by_a_folder_of_the_package_s_name(monkeypatch, tmp_path):
  """As /content/score_jax on Colab: Python takes it for a package without files."""
  make_checkout(tmp_path / 'score_jax')
  folder = importlib.machinery.ModuleSpec('score_jax', loader=None, is_package=True)
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: folder)
  lines, first = run_install_cell(
    monkeypatch, tmp_path, source=str(tmp_path / 'score_jax'), is_installed=True
  )
  assert lines and first == str(tmp_path / 'score_jax')


def test_install_cell_takes_the_checkout_around_it(monkeypatch):
  lines, first = run_install_cell(monkeypatch, NOTEBOOKS)
  assert lines == [f'pip install --quiet --editable "{ROOT}"']
  assert first == str(ROOT)


def test_install_cell_takes_a_folder(monkeypatch, tmp_path):
  folder = tmp_path / 'on my Drive'
  make_checkout(folder)
  lines, first = run_install_cell(monkeypatch, tmp_path, source=str(folder))
  assert lines == [f'pip install --quiet --editable "{folder}"']
  assert first == str(folder)


def test_install_cell_clones_an_address_once(monkeypatch, tmp_path):
  address, clone = 'https://example.org/score_jax.git', tmp_path / 'score_jax_checkout'
  lines, first = run_install_cell(monkeypatch, tmp_path, source=address)
  assert lines[0] == f'git clone --quiet "{address}" "{clone}"'
  assert lines[1:] == [f'pip install --quiet --editable "{clone}"']
  assert first == str(clone)
  lines, _ = run_install_cell(monkeypatch, tmp_path, source=address)
  assert lines == [f'pip install --quiet --editable "{clone}"']


def test_install_cell_says_what_to_do_where_nothing_is(monkeypatch, tmp_path):
  with pytest.raises(FileNotFoundError, match='set SOURCE to the address'):
    run_install_cell(monkeypatch, tmp_path)


def outputs_of(cell, kind):
  """All outputs of one kind: text joined, printed text as text/plain, pictures decoded."""
  found = [o.data[kind] for o in cell.outputs if kind in o.get('data', {})]
  if kind == TEXT:
    found += [o.text for o in cell.outputs if o.output_type == 'stream' and o.name == 'stdout']
  if kind != PNG:
    return '\n'.join(found)
  pictures = [base64.b64decode(data) for data in found]
  assert all(p.startswith(b'\x89PNG') and len(p) > 5000 for p in pictures), 'no picture, or empty'
  return pictures


@pytest.mark.slow
@pytest.mark.parametrize('name', EXPECTED)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
  """Top to bottom within pytest's time limit of 300 s, everything it writes in one folder."""
  here, runs = tmp_path / 'here', tmp_path / 'runs'
  here.mkdir()
  monkeypatch.setenv('SCORE_NOTEBOOK_DIR', str(runs))
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  monkeypatch.setenv('IPYTHONDIR', str(tmp_path / 'ipython'))
  monkeypatch.setenv('JUPYTER_RUNTIME_DIR', str(tmp_path / 'jupyter'))
  notebook = read(name)
  NotebookClient(
    notebook, timeout=300, kernel_name='python3', resources={'metadata': {'path': str(here)}}
  ).execute()  # raises what a cell raised
  cells = {cell.id: cell for cell in code_cells(notebook)}
  for cell, wanted in EXPECTED[name].items():
    for kind, text in wanted:
      found = outputs_of(cells[cell], kind)
      assert found, f'cell {cell} shows no {kind}'
      if kind != PNG:
        assert re.search(text, found, re.DOTALL), f'cell {cell} does not show {text!r}:\n{found}'
  assert not list(here.iterdir())
  assert [path.name for path in runs.iterdir()] == [name]
