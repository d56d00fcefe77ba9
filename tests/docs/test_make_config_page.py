"""docs/config.md has every key of the config once, as the source's comments describe it."""

import pytest
from makers import ROOT, load, table_rows
from ml_collections import ConfigDict

from score_jax.core.config import default_config, leaves

config_page = load('docs/make_config_page.py')
PAGE = (ROOT / 'docs/config.md').read_text(encoding='utf-8')


def test_config_page_is_up_to_date():
  wanted = config_page.config_page()
  assert PAGE == wanted, 'python docs/make_config_page.py --output=docs/config.md'


def test_config_page_has_every_key_once():
  keys = [row[0].strip('`') for row in table_rows(PAGE)]
  wanted = [key.removeprefix('config.') for key, _ in leaves(default_config())]
  # Dicts that are empty by default are keys, too.
  assert sorted(keys) == sorted([*wanted, 'task.level_weights', 'chat.options'])


@pytest.mark.parametrize(
  ('source', 'complaint'),
  [
    ('c.a = 1\nc.b = ConfigDict()  # part\nc.b.d = 2  # two\n', 'c.a has no comment'),
    ('c.a = 1  # one\nc.b = ConfigDict()  # part\n', r'c\.b\.d: no `c\.b\.d = VALUE'),
    ('c.a = 1  # one\nc.b = ConfigDict()\nc.b.d = 2  # two\n', r'c\.b has no comment'),
    ('c.a = 1  # [miles] one\nc.b = 0  # part\nc.b.d = 2  # two\n', "units \\['miles'\\]"),
    ('c.a = 1  # (paper: x)\nc.b = 0  # part\nc.b.d = 2  # two\n', 'c.a has no comment'),
    ('c.a = 1  # a\nc.z = 1  # z\nc.b = 0  # b\nc.b.d = 2  # d\n', 'assigns c.z'),
  ],
)
def test_config_page_refuses(source, complaint):
  with pytest.raises(ValueError, match=complaint):
    config_page.read_rows(source, ConfigDict({'a': 1, 'b': {'d': 2}}))


def test_config_rows_by_hand():
  source = (
    'c.a = 1  # [tokens] how many\n\n# not of b\n\n# of b,\n# going on (paper: beta)\nc.b = {}\n'
  )
  rows = config_page.read_rows(source, ConfigDict({'a': 1, 'b': {}}))
  assert [(r.key, r.unit, r.meaning, r.symbol) for r in rows] == [
    ('a', 'tokens', 'how many', ''),
    ('b', '', 'of b, going on', 'beta'),
  ]
  keys = ('eval.batch', 'seed')
  assert [config_page.is_changeable(key) for key in keys] == [True, False]


def test_the_config_program(tmp_path):
  config_page.main([f'--output={tmp_path}/config.md'])
  assert (tmp_path / 'config.md').read_text(encoding='utf-8') == config_page.config_page()
