"""Vocabularies by themselves: special tokens in and out of text, and ids that are none."""

from small_models import byte_backend

from score_jax.tokenizers.vocabularies import TokenizersVocabulary


def test_bytes_and_special_tokens():
  vocabulary = TokenizersVocabulary(byte_backend(['<a>', '<b>']))
  assert vocabulary.encode('x<b>')[1:] == [257] and len(vocabulary.encode('é')) == 2
  assert (vocabulary.token_to_id('<a>'), vocabulary.token_to_id('<c>')) == (256, None)
  assert vocabulary.id_to_token(257) == '<b>'
  assert vocabulary.decode([256, *vocabulary.encode('é 1'), 257]) == 'é 1'
