"""Tokenizers: text to token ids and back, and the chat format around a turn.

An episode is one sequence of token ids. What the model wrote in turn 1 is never tokenised again;
after it stands only what the chat format puts between two turns:

    prompt_ids(problem) | turn 1, end of turn | followup_ids(instruction) | turn 2, end of turn

`SentencePieceTokenizer` has no chat format (the package's own small policy); `HFTokenizer` takes
its format from the model's jinja2 template, rendered as `transformers` renders it.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from etils import epath


@runtime_checkable
class Tokenizer(Protocol):
  """What the rest of the package needs of a tokenizer.

  Attributes:
    vocab_size: number of ids, special tokens included.
    pad_id: any valid id; it fills empty slots. Masks come from the sampler, never from this id,
      so it may well be an end-of-turn id.
    end_of_turn_ids: each of these ends a turn. The first is the one that the chat format writes;
      it is appended, unsampled, to a turn that was cut off by its budget.
  """

  vocab_size: int
  pad_id: int
  end_of_turn_ids: tuple[int, ...]

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

  Args:
    model_path: the .model file, local or in a bucket (`gs://...`).
    add_bos: begin prompts (not follow-ups) with the model's beginning-of-sequence id.

  Raises:
    ValueError: the file is missing or no SentencePiece model, has no end-of-sequence id, or has
      no beginning-of-sequence id although `add_bos` is set.
  """

  def __init__(self, model_path: epath.PathLike, add_bos: bool = False):
    import sentencepiece  # here, so that importing the package stays fast

    path = epath.Path(model_path)
    if not path.exists():
      raise ValueError(f'no SentencePiece model at {path}')
    try:
      self._model = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    except RuntimeError as error:
      raise ValueError(f'{path} is not a SentencePiece model ({error})') from error
    eos_id, pad_id, bos_id = self._model.eos_id(), self._model.pad_id(), self._model.bos_id()
    if eos_id < 0:
      raise ValueError(f'{path} has no end-of-sequence piece: train it with eos_id >= 0')
    if add_bos and bos_id < 0:
      raise ValueError(f'{path} has no beginning-of-sequence piece: set add_bos=False')
    self.vocab_size = self._model.vocab_size()
    self.pad_id = pad_id if pad_id >= 0 else eos_id
    self.end_of_turn_ids = (eos_id,)
    self._prefix = [bos_id] if add_bos else []

  def encode(self, text: str) -> list[int]:
    """Returns the ids of plain text, without a beginning-of-sequence id."""
    return self._model.encode(text)

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text of ids, special tokens left out."""
    ids = [int(i) for i in ids if i < self.vocab_size]
    return self._model.decode([i for i in ids if not self._model.is_control(i)])

  def prompt_ids(self, user_text: str) -> list[int]:
    """Returns the ids of the text, after a beginning-of-sequence id if one was asked for."""
    return self._prefix + self.encode(user_text)

  def followup_ids(self, user_text: str) -> list[int]:
    """Returns the ids of the text."""
    return self.encode(user_text)


# Stand-ins for messages, in plain words so that no template trims or escapes them.
_FIRST_MESSAGE = 'firstusermessage'
_ASSISTANT_MESSAGE = 'assistantmessagesentinel'
_NEXT_MESSAGE = 'nextusermessage'


class HFTokenizer:
  """A tokenizer of the `tokenizers` library with a jinja2 chat template.

  Text of a special token inside a user's message becomes that token, as in `transformers`.

  Args:
    backend: a `tokenizers.Tokenizer`.
    chat_template: jinja2 source; sees `messages`, `add_generation_prompt` and `special_tokens`.
    end_of_turn_ids: every id that ends a turn, in any order: the one that the template writes
      after an assistant message is moved to the front.
    pad_id: fills empty slots.
    special_tokens: names for the template, such as `{'bos_token': '<s>'}`.

  Raises:
    ValueError: an id lies outside the vocabulary, or the template cannot be continued after an
      assistant turn: it does not parse, refuses the messages, drops or alters what the assistant
      wrote, or does not end the turn with one of `end_of_turn_ids`.
  """

  def __init__(
    self,
    backend: Any,
    chat_template: str,
    *,
    end_of_turn_ids: Sequence[int],
    pad_id: int,
    special_tokens: Mapping[str, str] | None = None,
  ):
    self._backend = backend
    self._template = _compile_template(chat_template)
    self._special_tokens = dict(special_tokens or {})
    self.vocab_size = backend.get_vocab_size(with_added_tokens=True)
    for token_id in (pad_id, *end_of_turn_ids):
      if not 0 <= token_id < self.vocab_size:
        raise ValueError(f'token id {token_id} is outside the vocabulary of {self.vocab_size}')
    self.pad_id = pad_id
    written_id = self._check_template(end_of_turn_ids)
    self.end_of_turn_ids = tuple(dict.fromkeys([written_id, *end_of_turn_ids]))

  def encode(self, text: str) -> list[int]:
    """Returns the ids of plain text, without a beginning-of-sequence id."""
    return self._backend.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text of ids, special tokens left out."""
    ids = [int(i) for i in ids if i < self.vocab_size]
    return self._backend.decode(ids, skip_special_tokens=True)

  def render(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
    """Renders a conversation with the chat template.

    Args:
      messages: `{'role': ..., 'content': ...}`, oldest first.
      add_generation_prompt: end with the header under which the assistant writes.

    Returns:
      The text that `prompt_ids` tokenises.

    Raises:
      ValueError: the template refuses these messages.
    """
    import jinja2

    try:
      return self._template.render(
        messages=[dict(message) for message in messages],
        tools=None,
        documents=None,
        add_generation_prompt=add_generation_prompt,
        **self._special_tokens,
      )
    except jinja2.TemplateError as error:
      roles = ', '.join(message['role'] for message in messages)
      raise ValueError(f'the chat template refuses messages of [{roles}]: {error}') from error

  def prompt_ids(self, user_text: str) -> list[int]:
    """Returns the user's first message in the chat format, with the assistant's header."""
    messages = [{'role': 'user', 'content': user_text}]
    return self.encode(self.render(messages, add_generation_prompt=True))

  def followup_ids(self, user_text: str) -> list[int]:
    """Returns the end of the turn's format, the user's next message and the assistant's header."""
    ids = self.encode(self._after_assistant(user_text))
    if ids[:1] != [self.end_of_turn_ids[0]]:
      raise ValueError(
        f'the chat template ends an assistant turn with id {ids[:1]} before this message, and '
        f'with id {self.end_of_turn_ids[0]} before others: it cannot be continued'
      )
    return ids[1:]

  def _after_assistant(self, user_text: str) -> str:
    """Renders two turns and returns the text behind the first assistant message."""
    messages = [
      {'role': 'user', 'content': _FIRST_MESSAGE},
      {'role': 'assistant', 'content': _ASSISTANT_MESSAGE},
      {'role': 'user', 'content': user_text},
    ]
    text = self.render(messages, add_generation_prompt=True)
    _, found, after = text.partition(_ASSISTANT_MESSAGE)
    if not found:
      raise ValueError(
        'the chat template drops or alters what the assistant wrote: a stand-in message does not '
        f'come out as it went in; rendered: {text[-200:]!r}'
      )
    return after

  def _check_template(self, end_of_turn_ids: Sequence[int]) -> int:
    """Returns the end-of-turn id that the template writes after an assistant message."""
    after = self._after_assistant(_NEXT_MESSAGE)
    if _ASSISTANT_MESSAGE in after or after.count(_NEXT_MESSAGE) != 1:
      raise ValueError(
        'the chat template repeats or drops messages, so turn 2 cannot be appended to turn 1; '
        f'after the assistant message it renders {after[:200]!r}'
      )
    ids = self.encode(after)
    if not ids or ids[0] not in end_of_turn_ids:
      names = [self._backend.id_to_token(i) for i in end_of_turn_ids]
      raise ValueError(
        f'the chat template does not end an assistant turn with one of {names}; '
        f'after the message it writes {after[:80]!r}'
      )
    return ids[0]


def _compile_template(source: str) -> Any:
  """Compiles a chat template with the environment that `transformers` gives to templates.

  Templates come with models from strangers, hence the sandbox.
  """
  import jinja2
  import jinja2.ext
  import jinja2.sandbox

  class Generation(jinja2.ext.Extension):
    """Lets `{% generation %}` blocks through; they only mark what the assistant wrote."""

    tags = {'generation'}

    def parse(self, parser):
      next(parser.stream)
      return parser.parse_statements(['name:endgeneration'], drop_needle=True)

  def raise_exception(message):
    raise jinja2.TemplateError(message)

  def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    # jinja2's own filter escapes HTML characters.
    return json.dumps(
      value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )

  def strftime_now(pattern):
    return datetime.datetime.now().strftime(pattern)

  environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
  )
  environment.filters['tojson'] = tojson
  environment.globals['raise_exception'] = raise_exception
  environment.globals['strftime_now'] = strftime_now
  try:
    return environment.from_string(source)
  except jinja2.TemplateSyntaxError as error:
    raise ValueError(f'the chat template does not parse, line {error.lineno}: {error}') from error
