"""Builds the tokenizer inside a GGUF file: byte-level BPE, chat template, ends of turn."""

from typing import Any

from etils import epath

from score_jax.core.tokenizers import HFTokenizer
from score_jax.model.gguf_file import GgufFile, opened

# Pre-tokenizers of byte-level BPE, by the name in `tokenizer.ggml.pre`: are digits set apart?
_SPLITS_DIGITS = {'gpt-2': False, 'smollm': True}

# Names of control tokens that end a turn even where the metadata does not say so.
_END_OF_TURN_TOKENS = ('<|im_end|>', '<|eot_id|>', '<|end_of_text|>', '<|endoftext|>', '</s>')

_CONTROL, _USER_DEFINED = 3, 4  # values of `tokenizer.ggml.token_type`


def read_tokenizer(source: epath.PathLike | GgufFile) -> HFTokenizer:
  """Builds a GGUF file's own tokenizer, chat template included.

  Numbers are set apart as the file's `tokenizer.ggml.pre` says. (`transformers` 5 does not know the
  name `smollm`, and so takes a space to the number behind it, which SmolLM2 never saw: two spaces
  and a digit get other ids there.)

  Args:
    source: path of the file, or the file from `open_gguf`.

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
      i for i, token in enumerate(tokens) if types[i] == _CONTROL and token in _END_OF_TURN_TOKENS
    ]
    template = file.metadata('tokenizer.chat_template')
    if template is None or not ends:
      missing = 'tokenizer.chat_template' if template is None else 'tokenizer.ggml.eos_token_id'
      raise ValueError(
        f'{file.path}: metadata {missing} is missing; an instruction-tuned model is needed'
      )
    names = {'bos': 'bos_token', 'eos': 'eos_token', 'unknown': 'unk_token', 'padding': 'pad_token'}
    try:
      return HFTokenizer(
        backend,
        template,
        end_of_turn_ids=ends,
        pad_id=ids.get('padding', ends[0]),
        special_tokens={names[name]: tokens[i] for name, i in ids.items() if name in names},
      )
    except ValueError as error:
      raise ValueError(f'{file.path}: {error}') from error


def _read_bpe(file: GgufFile) -> tuple[list[str], Any]:
  """Builds a file's byte-level BPE; returns its tokens, by id, and a `tokenizers.Tokenizer`."""
  import tokenizers
  from tokenizers import decoders, models, pre_tokenizers

  kind, pre, space_prefix = (
    file.metadata(f'tokenizer.ggml.{key}') for key in ('model', 'pre', 'add_space_prefix')
  )
  if kind != 'gpt2' or pre not in _SPLITS_DIGITS or space_prefix:
    raise ValueError(
      f'{file.path}: tokenizer {kind!r} with pre-tokenizer {pre!r} is not supported, only '
      f"'gpt2' (byte-level BPE) with one of {sorted(_SPLITS_DIGITS)} and no space prefix"
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
    model = models.BPE(vocab, [tuple(merge.split(' ')) for merge in merges])
  except Exception as error:  # the library raises nothing narrower
    raise ValueError(f'{file.path}: damaged BPE merges ({error})') from error
  backend = tokenizers.Tokenizer(model)
  steps = [pre_tokenizers.Digits(individual_digits=True)] if _SPLITS_DIGITS[pre] else []
  steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False))
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
