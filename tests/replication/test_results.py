"""What is read of a work directory, and what is refused."""

import pytest
from etils import epath
from replication_rows import ROWS

from score_jax.replication.results import read_results


def test_a_name_stands_for_one_row(tmp_path):
  with pytest.raises(ValueError, match='there twice'):
    read_results(epath.Path(tmp_path), [ROWS[0], ROWS[0]])
