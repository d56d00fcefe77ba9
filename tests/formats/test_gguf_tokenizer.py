"""Tokenizers of GGUF files: ids as published, and damage is named."""

import datetime

import numpy as np
import pytest
from makers import TESTS
from small_models import CHATML, write_gguf
from tokenizers import pre_tokenizers

from score_jax.formats.gguf_tokenizer import read_tokenizer

TOKENS = [
  '<|endoftext|>',
  '<|im_start|>',
  '<|im_end|>',
  *sorted(pre_tokenizers.ByteLevel.alphabet()),
]
TOKENS += ['12', 'ĠĠ', 'ĠĠĠ', '<think>']
V = len(TOKENS)
METADATA = {
  'tokenizer.ggml.model': 'gpt2',
  'tokenizer.ggml.pre': 'smollm',
  'tokenizer.ggml.tokens': TOKENS,
  'tokenizer.ggml.token_type': [3] * 3 + [1] * (V - 4) + [4],
  'tokenizer.ggml.merges': ['1 2', 'Ġ Ġ', 'ĠĠ Ġ'],
  'tokenizer.ggml.bos_token_id': 1,
  'tokenizer.ggml.eos_token_id': 2,
  'tokenizer.chat_template': CHATML,
}


def write(path, metadata=None):
  """Writes a file without weights; None in `metadata` takes that entry out."""
  return write_gguf(path, METADATA | (metadata or {}), {'nothing': np.zeros(1, np.float32)})


def test_tokenizer(tmp_path):
  tokenizer = read_tokenizer(write(tmp_path / 'tiny.gguf'))
  one, two, space, spaces = (TOKENS.index(t) for t in ('1', '2', 'Ġ', 'ĠĠĠ'))
  assert tokenizer.encode('12') == [one, two]  # smollm never joins digits, not even by a merge
  assert tokenizer.encode('   1 2') == [spaces, one, space, two]
  assert tokenizer.encode('1<think>2<|im_end|>') == [one, V - 1, two, 2]
  assert tokenizer.decode(tokenizer.encode('1<think>2<|im_end|>')) == '1<think>2'
  assert (tokenizer.vocab_size, tokenizer.pad_id, tokenizer.end_of_turn_ids) == (V, 2, (2, 0))
  gpt2 = read_tokenizer(write(tmp_path / 'gpt2.gguf', {'tokenizer.ggml.pre': 'gpt-2'}))
  assert gpt2.encode('12') == [TOKENS.index('12')]
  assert gpt2.encode('   1') == [TOKENS.index('ĠĠ'), space, one]


@pytest.mark.parametrize(
  ('metadata', 'complaint'),
  [
    ({'tokenizer.ggml.model': 'llama'}, "tokenizer 'llama'"),
    ({'tokenizer.ggml.pre': 'qwen2'}, "pre-tokenizer 'qwen2' is not supported"),
    ({'tokenizer.ggml.tokens': TOKENS[:-1]}, '262 tokens, 262 of them different, and 263 token'),
    ({'tokenizer.ggml.tokens': [*TOKENS[:-1], '1']}, '263 tokens, 262 of them different'),
    ({'tokenizer.ggml.merges': ['1 <unheard>']}, 'damaged BPE merges'),
    ({'tokenizer.ggml.eos_token_id': V}, 'eos_token_id=263 is outside the vocabulary of 263'),
    ({'tokenizer.ggml.bos_token_id': V}, 'bos_token_id=263 is outside the vocabulary of 263'),
    ({'tokenizer.chat_template': None}, 'tokenizer.chat_template is missing'),
    ({'tokenizer.chat_template': '{{ bos_token }}'}, 'drops or alters'),
  ],
)
def test_tokenizer_errors(tmp_path, metadata, complaint):
  path = write(tmp_path / 'tiny.gguf', metadata)
  with pytest.raises(ValueError, match=rf'tiny\.gguf: .*{complaint}'):
    read_tokenizer(path)


def test_llama3(tmp_path):
  """Up to three digits stay together, and a word in the vocabulary needs no merges."""
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  tokens = [*alphabet, '12', '34', 'Ġword', '<|begin_of_text|>', '<|eot_id|>']
  metadata = {
    'tokenizer.ggml.pre': 'llama-bpe',
    'tokenizer.ggml.tokens': tokens,
    'tokenizer.ggml.token_type': [1] * (len(tokens) - 2) + [3] * 2,
    'tokenizer.ggml.merges': ['1 2', '3 4'],
    'tokenizer.ggml.bos_token_id': 259,
    'tokenizer.ggml.eos_token_id': 260,
    'tokenizer.chat_template': (TESTS / 'chat_templates' / 'llama32.jinja').read_text(),
  }
  path = write(tmp_path / 'llama3.gguf', metadata)
  tokenizer = read_tokenizer(path, date=datetime.date(2025, 1, 2))
  one_two, word = 256, 258
  three, four = alphabet.index('3'), alphabet.index('4')
  assert tokenizer.encode('1234') == [one_two, three, four]
  assert tokenizer.encode(' word') == [word]
  prompt = tokenizer.prompt_ids('Q')
  assert prompt.count(259) == 1 and prompt[0] == 259
  assert 'Today Date: 02 Jan 2025' in tokenizer.decode(prompt)
  assert tokenizer.end_of_turn_ids == (260,)
