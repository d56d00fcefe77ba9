"""A tokenizer written as files is the same tokenizer."""

import pytest

from score_jax.formats.hf_tokenizer import read_tokenizer
from score_jax.formats.hf_tokenizer_files import tokenizer_files


@pytest.mark.parametrize('kind', ['bpe', 'gemma'])
def test_written_files_read_back(kind, request, tmp_path_factory):
  first = read_tokenizer(request.getfixturevalue(kind))
  folder = tmp_path_factory.mktemp('written')
  for name, contents in tokenizer_files(first).items():
    (folder / name).write_bytes(contents)
  second = read_tokenizer(folder)
  for name in ('vocab_size', 'pad_id', 'end_of_turn_ids', 'notes'):
    assert getattr(first, name) == getattr(second, name)
  text = ' 漢字 <bos><|im_end|>\n\n 12'
  assert first.prompt_ids(text) == second.prompt_ids(text)
  assert first.followup_ids(text) == second.followup_ids(text)
  assert first.decode(first.encode(text)) == second.decode(second.encode(text))
