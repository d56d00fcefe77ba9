"""What is read of a work directory, and what is refused."""

import pytest
from etils import epath
from replication_rows import EFFECTS, NUM_PROBLEMS, ROWS, make_seed

from score_jax.replication.report import write_report
from score_jax.replication.results import read_results


def test_a_name_stands_for_one_row(tmp_path):
  with pytest.raises(ValueError, match='there twice'):
    read_results(epath.Path(tmp_path), [ROWS[0], ROWS[0]])


def test_a_broken_record_is_named(tmp_path):
  path = epath.Path(tmp_path)
  make_seed(path / 'base' / 'seed0', 'base', 0, EFFECTS['base'])
  records = path / 'base' / 'seed0' / 'eval_greedy' / 'records.jsonl'
  records.write_text(records.read_text() + '{"id": 3\n')
  with pytest.raises(ValueError, match=f'records.jsonl:{NUM_PROBLEMS + 1}: not a line of JSON'):
    write_report(path, ROWS[:1], {})
