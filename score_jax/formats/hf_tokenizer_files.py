"""Writes a tokenizer as the files of a model's folder, for `transformers` and others to read."""

import json

from score_jax.tokenizers.chat_tokenizer import ChatTokenizer
from score_jax.tokenizers.vocabularies import TokenizersVocabulary


def tokenizer_files(tokenizer: ChatTokenizer) -> dict[str, bytes]:
  """Makes the files that describe a tokenizer, wherever it was read from.

  Args:
    tokenizer: any that has a chat format.

  Returns:
    Contents by file name: the vocabulary (tokenizer.json or tokenizer.model), tokenizer_config.json
    and chat_template.jinja. `score_jax.formats.hf_tokenizer.read_tokenizer` and `transformers`
    read them back as the same tokenizer; the ids that end a turn belong in generation_config.json,
    which describes the model.
  """
  vocabulary, template = tokenizer.vocabulary, tokenizer.template
  config = dict(template.special_tokens)
  if isinstance(vocabulary, TokenizersVocabulary):
    files = {'tokenizer.json': vocabulary.backend.to_str(pretty=True).encode()}
    config['tokenizer_class'] = 'PreTrainedTokenizerFast'  # takes tokenizer.json as it stands
  else:
    files = {'tokenizer.model': vocabulary.model_bytes()}
    config['tokenizer_class'] = 'GemmaTokenizer'
    config['added_tokens_decoder'] = {
      str(token_id): {
        'content': token,
        'special': True,
        **dict.fromkeys(('lstrip', 'rstrip', 'normalized', 'single_word'), False),
      }
      for token, token_id in vocabulary.special_tokens().items()
    }
  files['tokenizer_config.json'] = (json.dumps(config, indent=2) + '\n').encode()
  files['chat_template.jinja'] = template.source.encode()
  return files
