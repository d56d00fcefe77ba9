"""Reads the tokenizer of a model's folder, in the files that `transformers` writes.

    tokenizer.json           vocabulary of the `tokenizers` library; or else
    tokenizer.model          SentencePiece
    tokenizer_config.json    names of special tokens, perhaps the chat template
    special_tokens_map.json  names of special tokens, in older folders
    chat_template.jinja      the chat template; goes before the one in tokenizer_config.json
    generation_config.json   ids that end a turn

All but the vocabulary may be missing.
"""

import datetime
import json
import logging
from collections.abc import Mapping
from typing import Any

from etils import epath

from score_jax.core.errors import in_words
from score_jax.tokenizers.base import check_fit
from score_jax.tokenizers.chat_template import DEFAULT_DATE, GEMMA_TEMPLATE, ChatTemplate
from score_jax.tokenizers.chat_tokenizer import ChatTokenizer
from score_jax.tokenizers.vocabularies import (
  SentencePieceVocabulary,
  TokenizersVocabulary,
  Vocabulary,
)

# Tokens that end a turn even where no file says so. (`</s>` is not among them: where it does, it is
# the `eos_token`, and to Gemma it is the HTML tag.)
END_OF_TURN_TOKENS = tuple(
  '<end_of_turn> <|im_end|> <|eot_id|> <|eom_id|> <|endoftext|> <|end_of_text|>'.split()
)

_GEMMA_TOKENS = ('<start_of_turn>', '<end_of_turn>')


def read_tokenizer(
  folder: epath.PathLike,
  *,
  num_rows: int | None = None,
  chat_template: str | None = None,
  date: datetime.date = DEFAULT_DATE,
  options: Mapping[str, Any] | None = None,
) -> ChatTokenizer:
  """Reads the tokenizer of a model's folder, chat template included.

  Args:
    folder: local or in a bucket.
    num_rows: rows of the model's embedding. Added tokens beyond it, such as the image token of
      Gemma 3 1B, are left out, so that their text is plain text; anything else beyond it is an
      error. None: not checked.
    chat_template: jinja2 source to use in place of the folder's own.
    date: what a template gets that asks for today's date.
    options: more variables for the template, such as `{'enable_thinking': False}`.

  Returns:
    The tokenizer. A folder with no other file than a SentencePiece model that has Gemma's
    `<start_of_turn>` and `<end_of_turn>` gets Gemma's chat format.

  Raises:
    ValueError: a file is missing or damaged, the vocabulary does not fit the embedding, there is
      no chat template, or it cannot be continued after an assistant turn.
  """
  folder = epath.Path(folder)
  config = _read_json(folder / 'tokenizer_config.json')
  names = dict(config)
  if 'added_tokens_decoder' not in config:  # the older form, where the map has the last word
    names |= _read_json(folder / 'special_tokens_map.json')
  special_tokens = {
    key: text
    for key, value in names.items()
    if key.endswith('_token') and isinstance(text := _text_of(value), str)
  }
  path = folder / 'tokenizer.json'
  template = chat_template or _find_template(folder, config)
  if path.exists():
    vocabulary, left_out = _read_tokenizers(path, num_rows)
  else:
    path = folder / 'tokenizer.model'
    vocabulary, left_out = _read_sentencepiece(path, config, special_tokens, num_rows)
    special_tokens = vocabulary.names() | special_tokens
    if template is None and None not in map(vocabulary.token_to_id, _GEMMA_TOKENS):
      template = GEMMA_TEMPLATE
  if template is None:
    raise ValueError(
      f'{folder} has no chat template, in chat_template.jinja or tokenizer_config.json; an '
      'instruction-tuned model is needed'
    )
  _check_left_out(path, left_out, template, num_rows)
  ends, pad_id = _special_ids(folder, vocabulary, special_tokens)
  try:
    chat = ChatTemplate(template, special_tokens, date, options)
    return ChatTokenizer(vocabulary, chat, end_of_turn_ids=ends, pad_id=pad_id)
  except ValueError as error:
    raise ValueError(f'{folder}: {in_words(error)}') from error


def _read_json(path: epath.Path) -> dict:
  """Reads a JSON object; an empty one if there is no file."""
  if not path.exists():
    return {}
  try:
    value = json.loads(_read_text(path))
  except json.JSONDecodeError as error:
    raise ValueError(f'{path} is damaged: {in_words(error)}') from error
  if not isinstance(value, dict):
    raise ValueError(f'{path} is damaged: it holds a {type(value).__name__}, not an object')
  return value


def _read_text(path: epath.Path) -> str:
  try:
    return path.read_bytes().decode()
  except UnicodeDecodeError as error:
    raise ValueError(f'{path} is damaged: {in_words(error)}') from error


def _text_of(token: Any) -> str | None:
  """The text of a special token, which stands as itself or as `{'content': text, ...}`."""
  return token.get('content') if isinstance(token, dict) else token


def _find_template(folder: epath.Path, config: dict) -> str | None:
  """Returns the folder's chat template, or None."""
  path = folder / 'chat_template.jinja'
  if path.exists():
    return _read_text(path)
  template = config.get('chat_template')
  if isinstance(template, list):  # several, by name
    named = {entry['name']: entry['template'] for entry in template}
    if 'default' not in named:
      raise ValueError(
        f'{folder}/tokenizer_config.json has chat templates {sorted(named)} and none is called '
        "'default'"
      )
    return named['default']
  return template


def _read_tokenizers(
  path: epath.Path, num_rows: int | None
) -> tuple[TokenizersVocabulary, list[str]]:
  """Reads tokenizer.json; also returns the added tokens left out for want of a row."""
  import tokenizers

  text = _read_text(path)
  try:
    vocabulary = TokenizersVocabulary(tokenizers.Tokenizer.from_str(text))
  except Exception as error:  # the library raises nothing narrower
    raise ValueError(f'{path} is damaged: {in_words(error)}') from error
  if num_rows is None or vocabulary.size <= num_rows:
    return vocabulary, []
  contents = json.loads(text)
  beyond = [token for token in contents['added_tokens'] if token['id'] >= num_rows]
  contents['added_tokens'] = [t for t in contents['added_tokens'] if t['id'] < num_rows]
  contents['post_processor'] = None  # may name the tokens left out; it only adds to plain text
  reduced = TokenizersVocabulary(tokenizers.Tokenizer.from_str(json.dumps(contents)))
  if reduced.size > num_rows:
    check_fit(vocabulary.size, num_rows, path)
  return reduced, [token['content'] for token in beyond]


def _read_sentencepiece(
  path: epath.Path, config: dict, special_tokens: dict[str, str], num_rows: int | None
) -> tuple[SentencePieceVocabulary, list[str]]:
  """Reads tokenizer.model; also returns the added tokens left out for want of a row."""
  if not path.exists():
    raise ValueError(f'{path.parent} has neither a tokenizer.json nor a tokenizer.model')
  added = {
    token['content']: int(token_id)
    for token_id, token in config.get('added_tokens_decoder', {}).items()
    # The model itself knows those that are not special, such as runs of newlines.
    if token.get('special')
  }
  beyond = [token for token, i in added.items() if num_rows is not None and i >= num_rows]
  for token in beyond:
    del added[token]
  try:
    vocabulary = SentencePieceVocabulary(
      path.read_bytes(), special=[*_GEMMA_TOKENS, *special_tokens.values()], added=added
    )
  except ValueError as error:
    raise ValueError(f'{path}: {in_words(error)}') from error
  if num_rows is not None:
    check_fit(vocabulary.size, num_rows, path)
  return vocabulary, beyond


def _check_left_out(
  path: epath.Path, left_out: list[str], template: str, num_rows: int | None
) -> None:
  """Says which tokens were left out; refuses if the chat format needs one of them."""
  for token in left_out:
    if token in template:
      raise ValueError(
        f'{path}: the chat template writes {token!r}, which the embedding of {num_rows} rows does '
        'not have: tokenizer and model do not belong together'
      )
  if left_out:
    logging.warning(
      '%s: the embedding has %d rows and none for the added tokens %s; their text is plain text',
      path,
      num_rows,
      left_out,
    )


def _special_ids(
  folder: epath.Path, vocabulary: Vocabulary, special_tokens: dict[str, str]
) -> tuple[list[int], int]:
  """Returns the ids that end a turn, and the one that fills empty slots."""
  generation = _read_json(folder / 'generation_config.json')
  ends = []
  for file, config in (
    ('generation_config.json', generation),
    ('config.json', _read_json(folder / 'config.json')),
  ):
    ids = config.get('eos_token_id')
    for token_id in ids if isinstance(ids, list) else [] if ids is None else [ids]:
      if type(token_id) is not int:
        raise ValueError(
          f'{folder / file}: eos_token_id={json.dumps(ids)} is no token id, nor a list of such'
        )
      if not 0 <= token_id < vocabulary.size:
        raise ValueError(
          f'{folder / file}: eos_token_id={token_id} is outside the vocabulary of {vocabulary.size}'
        )
      ends.append(token_id)
  named = vocabulary.token_to_id(special_tokens.get('eos_token', ''))
  ends += [] if named is None else [named]
  for token in END_OF_TURN_TOKENS:
    token_id = vocabulary.token_to_id(token)
    if token_id is not None and vocabulary.encode(token) == [token_id]:
      ends.append(token_id)
  if not ends:
    raise ValueError(
      f'{folder} names no token that ends a turn: set eos_token_id in generation_config.json'
    )
  pad_id = vocabulary.token_to_id(special_tokens.get('pad_token', ''))
  return list(dict.fromkeys(ends)), ends[0] if pad_id is None else pad_id
