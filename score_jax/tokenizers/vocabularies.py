"""Vocabularies: pieces of text to ids and back, special tokens included, no chat format.

Two libraries, one face: `tokenizers` (Llama 3, Qwen, SmolLM2; most `tokenizer.json`) and
SentencePiece (Gemma's `tokenizer.model`).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol


class Vocabulary(Protocol):
  """Text to ids and back.

  Attributes:
    size: one more than the largest id.
  """

  size: int

  def encode(self, text: str) -> list[int]:
    """Returns the ids; text of a special token becomes that token; nothing is put in front."""

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text, special tokens left out; every id must be below `size`."""

  def token_to_id(self, token: str) -> int | None:
    """Returns the id of a whole token, or None."""

  def id_to_token(self, token_id: int) -> str:
    """Returns a token as it stands in the vocabulary."""


class TokenizersVocabulary:
  """A vocabulary of the `tokenizers` library.

  Args:
    backend: a `tokenizers.Tokenizer`. Any limit of length and any padding it has is taken off.
  """

  def __init__(self, backend: Any):
    backend.no_truncation()  # a tokenizer.json may carry these, and `encode` would obey
    backend.no_padding()
    self.backend = backend
    self.size = max(backend.get_vocab(with_added_tokens=True).values()) + 1

  def encode(self, text: str) -> list[int]:
    """Returns the ids."""
    return self.backend.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text."""
    return self.backend.decode(ids, skip_special_tokens=True)

  def token_to_id(self, token: str) -> int | None:
    """Returns the id of a whole token, or None."""
    return self.backend.token_to_id(token)

  def id_to_token(self, token_id: int) -> str:
    """Returns a token."""
    return self.backend.id_to_token(token_id)


def load_sentencepiece(model: bytes) -> Any:
  """Makes a SentencePiece processor of a .model file's bytes.

  Args:
    model: the bytes.

  Returns:
    A `sentencepiece.SentencePieceProcessor`.

  Raises:
    ValueError: these are no bytes of a SentencePiece model.
  """
  import sentencepiece  # here, so that importing the package stays fast

  processor = sentencepiece.SentencePieceProcessor()
  try:
    processor.LoadFromSerializedProto(model)
  except RuntimeError as error:
    raise ValueError(f'not a SentencePiece model ({error})') from error
  if not processor.vocab_size():
    raise ValueError('not a SentencePiece model: it has no pieces')
  return processor


class SentencePieceVocabulary:
  """A SentencePiece model, with its special tokens recognised in text.

  SentencePiece by itself reads `<bos>` as five characters; here, as in `transformers`, the text of
  a special token is that token.

  Args:
    model: the .model file's bytes.
    special: pieces of the model to treat as special besides its control pieces and its unknown
      piece, such as `<start_of_turn>`. Names that the model does not have are passed over.
    added: tokens outside the model, with their ids; special as well.

  Raises:
    ValueError: these are no bytes of a SentencePiece model, or one that changes spaces: chat
      formats need text to come out as it went in.
  """

  def __init__(
    self, model: bytes, special: Collection[str] = (), added: Mapping[str, int] | None = None
  ):
    self._model = load_sentencepiece(model)
    probe = ' x  x '
    if (found := self._model.normalize(probe)) != probe.replace(' ', '▁'):
      raise ValueError(
        f'this SentencePiece model reads {probe!r} as {found!r}: it adds or removes spaces, which '
        'changes the text around special tokens; use a tokenizer.json of the same model'
      )
    num_pieces = self._model.vocab_size()
    self._special: dict[str, int] = {}
    self._special |= {
      self._model.id_to_piece(i): i
      for i in range(num_pieces)
      if self._model.is_control(i) or self._model.is_unknown(i)
    }
    self._special |= {t: i for t in special if (i := self.token_to_id(t)) is not None}
    self._special |= added or {}
    self.size = max(num_pieces, 1 + max(self._special.values(), default=0))
    longest_first = sorted(self._special, key=len, reverse=True)
    self._split = re.compile('(' + '|'.join(map(re.escape, longest_first)) + ')')

  def encode(self, text: str) -> list[int]:
    """Returns the ids."""
    ids = []
    for i, part in enumerate(self._split.split(text)):  # every second part is a special token
      ids += [self._special[part]] if i % 2 else self._model.encode(part)
    return ids

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text."""
    special = set(self._special.values())
    return self._model.decode([i for i in ids if i not in special])

  def token_to_id(self, token: str) -> int | None:
    """Returns the id of a whole token, or None."""
    if token in self._special:
      return self._special[token]
    token_id = self._model.piece_to_id(token)  # the unknown piece's id for what it does not know
    return token_id if self._model.id_to_piece(token_id) == token else None

  def id_to_token(self, token_id: int) -> str:
    """Returns a token."""
    if token_id < self._model.vocab_size():
      return self._model.id_to_piece(token_id)
    return next(token for token, i in self._special.items() if i == token_id)

  def names(self) -> dict[str, str]:
    """Returns what the model calls its special tokens: `{'bos_token': '<bos>', ...}`."""
    m = self._model
    ids = {'bos': m.bos_id(), 'eos': m.eos_id(), 'unk': m.unk_id(), 'pad': m.pad_id()}
    return {f'{name}_token': m.id_to_piece(i) for name, i in ids.items() if i >= 0}

  def special_tokens(self) -> dict[str, int]:
    """Returns every special token with its id."""
    return dict(self._special)

  def model_bytes(self) -> bytes:
    """Returns the .model file."""
    return self._model.serialized_model_proto()
