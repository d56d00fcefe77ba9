"""Tokenizers: text to token ids and back, and the chat format around a turn.

An episode is one sequence of token ids. What the model wrote in turn 1 is never tokenised again;
after it stands only what the chat format puts between two turns:

    prompt_ids(problem) | turn 1, end of turn | followup_ids(instruction) | turn 2, end of turn

`SentencePieceTokenizer` has no chat format (the package's own small policy); `ChatTokenizer`, in
`score_jax.tokenizers.chat_tokenizer`, takes its format from the model's template.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from etils import epath

from score_jax.tokenizers.vocabularies import load_sentencepiece


@runtime_checkable
class Tokenizer(Protocol):
  """What the rest of the package needs of a tokenizer.

  Attributes:
    vocab_size: one more than the largest id, special tokens included.
    pad_id: any valid id; it fills empty slots. Masks come from the sampler, never from this id,
      so it may well be an end-of-turn id.
    end_of_turn_ids: each of these ends a turn. The first is the one that the chat format writes;
      it is appended, unsampled, to a turn that was cut off by its budget.
    notes: where an episode is not what the chat format alone would make of the conversation, in
      whole sentences for a person to read.
  """

  vocab_size: int
  pad_id: int
  end_of_turn_ids: tuple[int, ...]
  notes: tuple[str, ...]

  def encode(self, text: str) -> list[int]:
    """Returns the ids of plain text: no chat format, no beginning-of-sequence token."""

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text of ids, special tokens left out.

    So are ids from `vocab_size` on: the embedding of some checkpoints has more rows than their
    tokenizer has tokens, and a sampler may hit one.
    """

  def prompt_ids(self, user_text: str) -> list[int]:
    """Returns everything up to where the assistant begins to write turn 1."""

  def followup_ids(self, user_text: str) -> list[int]:
    """Returns what follows an assistant turn that ended with `end_of_turn_ids[0]`.

    That is the rest of the turn's suffix in the chat format, the user's next message, and the
    header under which the assistant writes. Earlier turns are not rendered again.
    """


class SentencePieceTokenizer:
  """A SentencePiece model without a chat format: prompt and instruction are plain text.

  Attributes:
    special_tokens: their names, `{'eos_token': '</s>', ...}`; in a text they are plain text.

  Args:
    model_path: the .model file, local or in a bucket (`gs://...`).
    add_bos: begin prompts (not follow-ups) with the model's beginning-of-sequence id.

  Raises:
    ValueError: the file is missing or no SentencePiece model, has no end-of-sequence id, or has
      no beginning-of-sequence id although `add_bos` is set.
  """

  def __init__(self, model_path: epath.PathLike, add_bos: bool = False):
    path = epath.Path(model_path)
    if not path.exists():
      raise ValueError(f'no SentencePiece model at {path}')
    try:
      self._model = load_sentencepiece(path.read_bytes())
    except ValueError as error:
      raise ValueError(f'{path} is {error}') from error
    eos_id, pad_id, bos_id = self._model.eos_id(), self._model.pad_id(), self._model.bos_id()
    if eos_id < 0:
      raise ValueError(f'{path} has no end-of-sequence piece: train it with eos_id >= 0')
    if add_bos and bos_id < 0:
      raise ValueError(f'{path} has no beginning-of-sequence piece: set add_bos=False')
    self.vocab_size = self._model.vocab_size()
    self.pad_id = pad_id if pad_id >= 0 else eos_id
    self.end_of_turn_ids = (eos_id,)
    self.notes = ()
    self._prefix = [bos_id] if add_bos else []
    ids = {'bos': bos_id, 'eos': eos_id, 'pad': pad_id}
    self.special_tokens = {
      f'{name}_token': self._model.id_to_piece(i) for name, i in ids.items() if i >= 0
    }

  def encode(self, text: str) -> list[int]:
    """Returns the ids of plain text, without a beginning-of-sequence id."""
    return self._model.encode(text)

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text of ids, special tokens left out."""
    ids = [int(i) for i in ids if i < self.vocab_size]
    return self._model.decode([i for i in ids if not self._model.is_control(i)])

  def model_bytes(self) -> bytes:
    """Returns the .model file."""
    return self._model.serialized_model_proto()

  def prompt_ids(self, user_text: str) -> list[int]:
    """Returns the ids of the text, after a beginning-of-sequence id if one was asked for."""
    return self._prefix + self.encode(user_text)

  def followup_ids(self, user_text: str) -> list[int]:
    """Returns the ids of the text."""
    return self.encode(user_text)


def check_fit(vocab_size: int, num_rows: int, where: object) -> None:
  """Checks that every id of a tokenizer has a row in the model's embedding.

  More rows than ids are fine: embeddings are often padded to a round number.

  Args:
    vocab_size: of the tokenizer.
    num_rows: of the embedding.
    where: the tokenizer's file, for the message.

  Raises:
    ValueError: there are more ids than rows.

  Example:
    >>> check_fit(49152, 49152, 'tokenizer.json')
  """
  if vocab_size > num_rows:
    raise ValueError(
      f'{where}: the tokenizer has {vocab_size} ids and the embedding of the model {num_rows} '
      'rows; they do not belong together'
    )
