"""JSON-lines files: read in order, and every broken line is named."""

import gzip
import json

import pytest

from score_jax.core import jsonl


def _write(path, content: bytes):
  path.write_bytes(content)
  return path


def test_rows_are_read_in_order_with_all_their_fields(tmp_path):
  rows = [{'question': 'é?', 'extra': 1}, {'question': '日本\u2028', 'extra': None}]
  lines = [json.dumps(row, ensure_ascii=False) for row in rows]
  path = _write(tmp_path / 'a.jsonl', ('\r\n'.join(lines) + '\n\n').encode())
  assert jsonl.read_jsonl(path, ['question']) == rows


@pytest.mark.parametrize(
  'line, message',
  [
    (b'{"q": "a"', r'a\.jsonl:3: not JSON: '),
    (b'[1]', r'a\.jsonl:3: a JSON object was expected, found list'),
    (b'{"p": "a"}', r"a\.jsonl:3: missing field 'q'; the row has \['p'\]"),
    (b'{"q": 12}', r"a\.jsonl:3: field 'q' should be text, found int"),
    (b'{"q": "\xff"}', r'a\.jsonl:3: not UTF-8: byte 0xff at column 8'),
    (b'[' * 100_000, r'a\.jsonl:3: not JSON: '),
    (b'{"q": "a", "q": "b"}', r"a\.jsonl:3: not JSON: the key 'q' stands there 2 times; keep one"),
    (b'{"q": "a", "p": {"r": 1, "r": 1}}', r"a\.jsonl:3: not JSON: the key 'r' stands there 2"),
    (b'{"q": "a", "n": NaN}', r'a\.jsonl:3: not JSON: NaN is no value of JSON'),
    (b'{"q": "a", "n": [-Infinity]}', r'a\.jsonl:3: not JSON: -Infinity is no value of JSON'),
  ],
)
def test_a_broken_line_is_named(tmp_path, line, message):
  # The second line is blank and counts, as it does in an editor.
  path = _write(tmp_path / 'a.jsonl', b'{"q": "fine"}\n\n' + line + b'\n{"q": "fine"}\n')
  with pytest.raises(ValueError, match=message):
    jsonl.read_jsonl(path, ['q'])


@pytest.mark.parametrize(
  'row, message',
  [
    ({'n': 1, 'texts': []}, ''),
    ({'n': -(10**30), 'texts': ['a', '']}, ''),
    ({'n': True, 'texts': []}, "field 'n' should be a whole number, found bool"),
    ({'n': 1.0, 'texts': []}, "field 'n' should be a whole number, found float"),
    ({'n': 1, 'texts': 'ab'}, "field 'texts' should be a list of texts, found str"),
    ({'n': 1, 'texts': ['a', 1]}, "field 'texts' should be a list of texts, found list"),
  ],
)
def test_fields_have_their_kinds_also_in_gzipped_files(tmp_path, row, message):
  path = _write(tmp_path / 'a.jsonl.gz', gzip.compress(json.dumps(row).encode()))
  if not message:
    assert jsonl.read_located(path, {'n': int, 'texts': list}) == [(f'{path}:1', row)]
    return
  with pytest.raises(ValueError, match=message):
    jsonl.read_jsonl(path, {'n': int, 'texts': list})


def test_a_number_of_too_many_digits_is_named(tmp_path):
  path = _write(tmp_path / 'a.jsonl', b'{"n": ' + b'1' * 5000 + b'}')
  with pytest.raises(ValueError, match=r'a\.jsonl:1: not JSON'):
    jsonl.read_jsonl(path, {'n': int})


@pytest.mark.parametrize('content', [b'', b'\n \n'])
def test_an_empty_file_is_an_error(tmp_path, content):
  with pytest.raises(ValueError, match=r'a\.jsonl: holds no rows'):
    jsonl.read_jsonl(_write(tmp_path / 'a.jsonl', content), ['q'])


def test_a_missing_file_names_the_flag(tmp_path):
  with pytest.raises(ValueError, match=r'none\.jsonl: no such file; set --config\.data\.path'):
    jsonl.read_jsonl(tmp_path / 'none.jsonl', ['q'])
  with pytest.raises(ValueError, match='is a directory'):
    jsonl.read_jsonl(tmp_path, ['q'])
