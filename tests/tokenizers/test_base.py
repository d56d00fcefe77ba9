"""Tokenizers without a chat format, and what every tokenizer promises."""

import io

import numpy as np
import pytest
import sentencepiece

from score_jax.tokenizers.base import SentencePieceTokenizer, Tokenizer, check_fit


def train_sentencepiece(path, **kwargs):
  """Writes a tiny SentencePiece model of digits and signs."""
  out = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(['1 + 2 = 3', '4 + 5 = 9', '6 + 7 + 8 = 21', '0']),
    model_writer=out,
    model_type='char',
    vocab_size=24,
    hard_vocab_limit=False,
    minloglevel=2,
    **kwargs,
  )
  path.write_bytes(out.getvalue())
  return path


def test_check_fit():
  check_fit(10, 12, 'here')
  with pytest.raises(ValueError, match='here: the tokenizer has 13 ids .* 12 rows'):
    check_fit(13, 12, 'here')


def test_sentencepiece(tmp_path):
  path = train_sentencepiece(tmp_path / 'tiny.model', pad_id=3)
  tokenizer = SentencePieceTokenizer(path)
  oracle = sentencepiece.SentencePieceProcessor(model_file=str(path))
  assert isinstance(tokenizer, Tokenizer)
  assert tokenizer.vocab_size == oracle.vocab_size()
  assert tokenizer.pad_id == 3
  assert tokenizer.end_of_turn_ids == (oracle.eos_id(),)
  ids = oracle.encode('12 + 3 =')
  assert tokenizer.prompt_ids('12 + 3 =') == tokenizer.followup_ids('12 + 3 =') == ids
  assert tokenizer.decode(np.array([*ids, oracle.eos_id(), 3, 999], np.int32)) == '12 + 3 ='
  with_bos = SentencePieceTokenizer(path, add_bos=True)
  assert with_bos.prompt_ids('1') == [oracle.bos_id(), *oracle.encode('1')]
  assert with_bos.followup_ids('1') == oracle.encode('1')


def test_sentencepiece_without_pad_pads_with_the_end(tmp_path):
  tokenizer = SentencePieceTokenizer(train_sentencepiece(tmp_path / 'tiny.model'))
  assert tokenizer.pad_id == tokenizer.end_of_turn_ids[0]


def test_sentencepiece_errors(tmp_path):
  with pytest.raises(ValueError, match=r'no SentencePiece model at .*gone\.model'):
    SentencePieceTokenizer(tmp_path / 'gone.model')
  (tmp_path / 'bad.model').write_bytes(b'not a model')
  with pytest.raises(ValueError, match=r'bad\.model is not a SentencePiece model'):
    SentencePieceTokenizer(tmp_path / 'bad.model')
  with pytest.raises(ValueError, match='no end-of-sequence'):
    SentencePieceTokenizer(train_sentencepiece(tmp_path / 'no_eos.model', eos_id=-1))
  no_bos = train_sentencepiece(tmp_path / 'no_bos.model', bos_id=-1)
  with pytest.raises(ValueError, match='add_bos=False'):
    SentencePieceTokenizer(no_bos, add_bos=True)


def test_importing_is_cheap(run_python):
  code = (
    'import sys, score_jax.tokenizers.base, score_jax.tokenizers.chat_tokenizer; '
    "print([m for m in ('jax', 'tokenizers', 'jinja2', 'sentencepiece') if m in sys.modules])"
  )
  result = run_python('-c', code)
  assert result.stdout.strip() == '[]', result.stderr
