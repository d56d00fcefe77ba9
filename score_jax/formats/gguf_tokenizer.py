"""Builds the tokenizer inside a GGUF file: byte-level BPE, chat template, ends of turn."""

import datetime
from collections.abc import Mapping
from typing import Any

from etils import epath

from score_jax.core.errors import in_words
from score_jax.formats.gguf_file import GgufFile, opened
from score_jax.formats.hf_tokenizer import END_OF_TURN_TOKENS
from score_jax.tokenizers.chat_template import DEFAULT_DATE, ChatTemplate
from score_jax.tokenizers.chat_tokenizer import ChatTokenizer
from score_jax.tokenizers.vocabularies import TokenizersVocabulary

# How text is cut before byte-level BPE, by the name in `tokenizer.ggml.pre`.
_CUTS = {
  'gpt-2': None,  # the library's own pattern, alone
  'smollm': None,  # the same, digits set apart one by one
  # Llama 3: a word, up to three digits, a run of signs, line ends, other space.
  'llama-bpe': (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
  ),
}

_CONTROL, _USER_DEFINED = 3, 4  # values of `tokenizer.ggml.token_type`


def read_tokenizer(
  source: epath.PathLike | GgufFile,
  *,
  chat_template: str | None = None,
  date: datetime.date = DEFAULT_DATE,
  options: Mapping[str, Any] | None = None,
) -> ChatTokenizer:
  """Builds a GGUF file's own tokenizer, chat template included.

  Numbers are set apart as the file's `tokenizer.ggml.pre` says. (`transformers` 5 does not know the
  name `smollm`, and so takes a space to the number behind it, which SmolLM2 never saw: two spaces
  and a digit get other ids there.)

  Args:
    source: path of the file, or the file from `open_gguf`.
    chat_template: jinja2 source to use in place of the file's own.
    date: what a template gets that asks for today's date.
    options: more variables for the template.

  Returns:
    The tokenizer.

  Raises:
    ValueError: the kind of tokenizer is unknown, there is no chat template or one that cannot be
      continued, or the vocabulary is damaged.
  """
  with opened(source) as file:
    tokens, backend = _read_bpe(file)
    ids = {}
    for name in ('bos', 'eos', 'eot', 'eom', 'unknown', 'padding'):
      key = f'tokenizer.ggml.{name}_token_id'
      if (value := file.metadata(key)) is None:
        continue
      if value >= len(tokens):
        raise ValueError(
          f'{file.path}: metadata {key}={value} is outside the vocabulary of {len(tokens)}'
        )
      ids[name] = value
    types = file.metadata('tokenizer.ggml.token_type')
    ends = [ids[name] for name in ('eos', 'eot', 'eom') if name in ids] + [
      i for i, token in enumerate(tokens) if types[i] == _CONTROL and token in END_OF_TURN_TOKENS
    ]
    template = chat_template or file.metadata('tokenizer.chat_template')
    if template is None or not ends:
      missing = 'tokenizer.chat_template' if template is None else 'tokenizer.ggml.eos_token_id'
      raise ValueError(
        f'{file.path}: metadata {missing} is missing; an instruction-tuned model is needed'
      )
    names = {'bos': 'bos_token', 'eos': 'eos_token', 'unknown': 'unk_token', 'padding': 'pad_token'}
    try:
      special_tokens = {names[name]: tokens[i] for name, i in ids.items() if name in names}
      chat = ChatTemplate(template, special_tokens, date, options)
      pad_id = ids.get('padding', ends[0])
      return ChatTokenizer(TokenizersVocabulary(backend), chat, end_of_turn_ids=ends, pad_id=pad_id)
    except ValueError as error:
      raise ValueError(f'{file.path}: {in_words(error)}') from error


def _read_bpe(file: GgufFile) -> tuple[list[str], Any]:
  """Builds a file's byte-level BPE; returns its tokens, by id, and a `tokenizers.Tokenizer`."""
  import tokenizers
  from tokenizers import decoders, models, pre_tokenizers

  kind, pre, space_prefix = (
    file.metadata(f'tokenizer.ggml.{key}') for key in ('model', 'pre', 'add_space_prefix')
  )
  if kind != 'gpt2' or pre not in _CUTS or space_prefix:
    raise ValueError(
      f'{file.path}: tokenizer {kind!r} with pre-tokenizer {pre!r} is not supported, only '
      f"'gpt2' (byte-level BPE) with one of {sorted(_CUTS)} and no space prefix"
    )
  tokens, merges, types = (
    file.metadata(f'tokenizer.ggml.{key}', []) for key in ('tokens', 'merges', 'token_type')
  )
  vocab = {token: i for i, token in enumerate(tokens)}
  if not len(vocab) == len(tokens) == len(types):
    raise ValueError(
      f'{file.path}: {len(tokens)} tokens, {len(vocab)} of them different, and {len(types)} token '
      'types; all three numbers must be the same'
    )
  try:
    pairs = [tuple(merge.split(' ')) for merge in merges]
    # Llama 3 takes a whole word that it knows before it looks at merges.
    model = models.BPE(vocab, pairs, ignore_merges=pre == 'llama-bpe')
  except Exception as error:  # the library raises nothing narrower
    raise ValueError(f'{file.path}: damaged BPE merges ({in_words(error)})') from error
  backend = tokenizers.Tokenizer(model)
  steps = [pre_tokenizers.Digits(individual_digits=True)] if pre == 'smollm' else []
  if cut := _CUTS[pre]:
    steps.append(pre_tokenizers.Split(tokenizers.Regex(cut), behavior='isolated'))
  steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut is None))
  backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
  backend.decoder = decoders.ByteLevel()
  for wanted, add in ((_CONTROL, backend.add_special_tokens), (_USER_DEFINED, backend.add_tokens)):
    add(
      [
        tokenizers.AddedToken(token, normalized=False, special=wanted == _CONTROL)
        for token, kind in zip(tokens, types, strict=True)
        if kind == wanted
      ]
    )
  return tokens, backend
