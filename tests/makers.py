"""What several test files make: paths, small models.

Imported as `makers`; `pythonpath` in pyproject.toml says where it lies.
"""

import importlib.util
import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
TESTS = ROOT / 'tests'


def load(path):
  """The module that a Python file of the repository is, such as 'docs/make_config_page.py'."""
  spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, ROOT / path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def table_rows(text):
  """The cells of each line of the tables of a text, headings left out."""
  lines = [line for line in text.splitlines() if line.startswith('|')]
  rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
  is_rule = [set(''.join(row)) <= {'-'} for row in rows] + [False]
  return [row for i, row in enumerate(rows) if not is_rule[i] and not is_rule[i + 1]]


# Imports what takes seconds, once, and then forks for each command line: a fork runs the program.
_FORKING = """
import json, os, runpy, sys, tempfile, warnings
import jax, ml_collections.config_flags
from score_jax.planning import shapes
from score_jax.setup import run
warnings.filterwarnings('ignore', message='os.fork')
module, lines = sys.argv[1], json.loads(sys.argv[2])
found = []
for line in lines:
  outputs = [tempfile.TemporaryFile('w+') for _ in range(2)]
  pid = os.fork()
  if pid == 0:
    for number, file in enumerate(outputs, start=1):
      os.dup2(file.fileno(), number)
    sys.argv = [module, *line]
    runpy.run_module(module, run_name='__main__', alter_sys=True)
    sys.exit()
  status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
  for file in outputs:
    file.seek(0)
  found.append((status, *(file.read() for file in outputs)))
print(json.dumps(found))
"""


def run_command_lines(run_python, module, lines):
  """Runs a program once for each list of arguments, all in the time of one import of jax.

  Returns:
    (exit status, standard output, standard error) of each.
  """
  done = run_python('-c', _FORKING, module, json.dumps(lines))
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)
