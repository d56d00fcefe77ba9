"""Folders with a tokenizer's files."""

import json

import pytest
from makers import TESTS
from small_models import byte_backend, write_sentencepiece


@pytest.fixture
def bpe(tmp_path):
  """A folder with a vocabulary of bytes, as `transformers` writes one."""
  backend = byte_backend(['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|eot_id|>'])
  backend.enable_truncation(3)  # as some published files have; it must not be obeyed
  backend.enable_padding(length=5)
  backend.save(str(tmp_path / 'tokenizer.json'))
  template = (TESTS / 'chat_templates' / 'qwen3.jinja').read_text()
  config = {'eos_token': '<|im_end|>', 'chat_template': template}
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
  return tmp_path


@pytest.fixture
def gemma(tmp_path):
  """A folder with nothing but a SentencePiece model, as Gemma's own checkpoints come."""
  write_sentencepiece(tmp_path)
  return tmp_path
