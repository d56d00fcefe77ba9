"""Writes a tokenizer as the files of a model's folder, for `transformers` and others to read."""

import json
import logging

from score_jax.formats.sentencepiece_json import tokenizer_json
from score_jax.tokenizers.base import SentencePieceTokenizer
from score_jax.tokenizers.chat_tokenizer import ChatTokenizer
from score_jax.tokenizers.vocabularies import TokenizersVocabulary


def tokenizer_files(tokenizer: ChatTokenizer | SentencePieceTokenizer) -> dict[str, bytes]:
  """Makes the files that describe a tokenizer, wherever it was read from.

  Args:
    tokenizer: any of the package's.

  Returns:
    Contents by file name: the vocabulary in tokenizer.json, a SentencePiece model in
    tokenizer.model as well, tokenizer_config.json, and chat_template.jinja where there is a chat
    format. `score_jax.formats.hf_tokenizer.read_tokenizer` (with a chat format) and `transformers`
    read them back as the same tokenizer; the ids that end a turn belong in generation_config.json,
    which describes the model. Where `tokenizers` has nothing that does what a SentencePiece model
    does, tokenizer.json is left out with a warning.
  """
  config = {'tokenizer_class': 'PreTrainedTokenizerFast'}  # takes tokenizer.json as it stands
  # Or some versions would take the space from in front of a full stop.
  config['clean_up_tokenization_spaces'] = False
  files = {}
  if isinstance(tokenizer, SentencePieceTokenizer):
    # The text of a special token is plain text here.
    config |= tokenizer.special_tokens | {'split_special_tokens': True}
    files |= _sentencepiece_files(tokenizer, tokenizer.model_bytes(), {}, config)
  else:
    vocabulary, template = tokenizer.vocabulary, tokenizer.template
    config |= template.special_tokens
    if isinstance(vocabulary, TokenizersVocabulary):
      files['tokenizer.json'] = vocabulary.backend.to_str(pretty=True).encode()
    else:
      special = vocabulary.special_tokens()
      files |= _sentencepiece_files(tokenizer, vocabulary.model_bytes(), special, config)
    files['chat_template.jinja'] = template.source.encode()
  files['tokenizer_config.json'] = (json.dumps(config, indent=2) + '\n').encode()
  return files


def _sentencepiece_files(tokenizer, model: bytes, special: dict[str, int], config: dict):
  """The files of a SentencePiece model; `config` is told what else their reader must know."""
  files = {'tokenizer.model': model}
  config['added_tokens_decoder'] = {
    str(token_id): {
      'content': token,
      'special': True,
      **dict.fromkeys(('lstrip', 'rstrip', 'normalized', 'single_word'), False),
    }
    for token, token_id in special.items()
  }
  try:
    files['tokenizer.json'] = tokenizer_json(model, special, tokenizer)
  except ValueError as error:
    logging.warning(
      'No tokenizer.json is written, only tokenizer.model, which `transformers` reads with more '
      'packages and perhaps differently: the `tokenizers` library cannot do what this model does: '
      '%s',
      error,
    )
    config['tokenizer_class'] = 'GemmaTokenizer' if special else 'LlamaTokenizer'
  return files
