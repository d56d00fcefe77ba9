"""Raw files of every data set, and a cache for what is prepared of them."""

import pytest
import raw_data


@pytest.fixture
def raw(tmp_path):
  return raw_data.write_all(tmp_path / 'raw')


@pytest.fixture
def cache(tmp_path):
  return tmp_path / 'cache'
