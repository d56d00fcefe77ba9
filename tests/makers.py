"""What several test files make: paths, small models.

Imported as `makers`; `pythonpath` in pyproject.toml says where it lies.
"""

import importlib.util
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
