"""The tokenizer.json of a SentencePiece model, beside SentencePiece."""

import io
import random

import pytest
import sentencepiece
import tokenizers

from score_jax.formats import sentencepiece_json
from score_jax.formats.sentencepiece_json import parse_model, tokenizer_json
from score_jax.setup.base_model import EMBEDDED
from score_jax.tokenizers.base import SentencePieceTokenizer

SHIPPED = EMBEDDED / 'tokenizer.model'
FRAGMENTS = [
  *'+4;4;+;12;3.14; ;  ;   ;\n;\n\n;\t;?;=;again;the;other;answer;é;e\u0301;漢字;🙂;▁;\x00'.split(
    ';'
  ),
  *'</s>;<s>;<unk>;<pad>;<0x41>;<sep>;aaaa;\u00a0;\ufffd'.split(';'),
]
CORPUS = ['the answer is 42', 'the other answer is 17, not 3.14 + <sep>', 'what is 4 + 12?'] * 3


def strings(count):
  rng = random.Random(3)
  drawn = [''.join(rng.choices(FRAGMENTS, k=rng.randint(1, 12))) for _ in range(count)]
  return ['', *FRAGMENTS, *drawn]


def train(path, **options):
  out = io.BytesIO()
  options = {'vocab_size': 60, 'hard_vocab_limit': False, 'minloglevel': 2} | options
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(CORPUS), model_writer=out, **options
  )
  path.write_bytes(out.getvalue())
  return path


def differences(path, texts):
  """What is read or written otherwise than by SentencePiece itself."""
  theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
  contents = tokenizer_json(path.read_bytes(), {}, SentencePieceTokenizer(path))
  ours = tokenizers.Tokenizer.from_str(contents.decode())
  found = []
  for text in texts:
    ids = theirs.encode(text)
    if ours.encode(text).ids != ids or ours.decode(ids) != theirs.decode(ids):
      found.append(text)
  return found


def test_shipped_policy():
  assert differences(SHIPPED, strings(1000)) == []
  contents = tokenizer_json(SHIPPED.read_bytes(), {}, SentencePieceTokenizer(SHIPPED))
  backend = tokenizers.Tokenizer.from_str(contents.decode())
  assert backend.encode('+4 5').tokens == ['▁+4', '▁5']


@pytest.mark.parametrize('spaces', [True, False])
@pytest.mark.parametrize('kind', ['unigram', 'bpe', 'char', 'word'])
def test_kinds(kind, spaces, tmp_path):
  """With a prefix and spaces joined, or neither; user-defined pieces; bytes."""
  options = dict(model_type=kind, add_dummy_prefix=spaces, remove_extra_whitespaces=spaces)
  options |= dict(normalization_rule_name='identity', byte_fallback=kind != 'word' and not spaces)
  options |= dict(vocab_size=400 if options['byte_fallback'] else 60)
  symbols = ['<sep>', '漢字'] + ['\n\n'] * (kind != 'unigram')  # where cuts of equal score differ
  path = train(tmp_path / 'm.model', user_defined_symbols=symbols, **options)
  assert differences(path, strings(300)) == []


def test_charsmap(tmp_path):
  path = train(tmp_path / 'm.model', model_type='bpe', normalization_rule_name='nmt_nfkc')
  assert parse_model(path.read_bytes()).charsmap
  assert differences(path, ['ﬁ Ａ ½ e\u0301 é ②\r\nx\u3000y \x07 ', *strings(300)]) == []


def test_what_cannot_be_said(tmp_path):
  options = dict(model_type='bpe', treat_whitespace_as_suffix=True)
  path = train(tmp_path / 'm.model', **options)
  with pytest.raises(ValueError, match='does not mark the beginning of a word'):
    differences(path, [])
  # The charsmap makes two spaces of what SentencePiece itself keeps as a piece.
  path = train(tmp_path / 'm.model', model_type='bpe', user_defined_symbols=['\n\n'])
  with pytest.raises(ValueError, match=r"it would read '\\n\\n' as"):
    differences(path, [])


def test_the_comparison_can_fail(monkeypatch):
  monkeypatch.setattr(sentencepiece_json, '_words_pattern', lambda model: '')
  with pytest.raises(ValueError, match='it would read'):
    differences(SHIPPED, [])
