"""A vocabulary and a chat template as one `Tokenizer`.

Turn 2 goes on behind the ids of turn 1, as they were sampled. A template, given the text of turn 1,
might have written something else: Gemma's and Llama's cut spaces off both ends of a message, Qwen
3's drops a thought. What would change is found by trying, kept in `notes`, and logged once.
"""

import logging
from collections.abc import Mapping, Sequence

from score_jax.tokenizers.chat_template import ChatTemplate
from score_jax.tokenizers.vocabularies import Vocabulary

# Stand-ins for messages, in plain words so that no template trims or escapes them.
_FIRST = 'firstusermessage'
_ANSWER = 'assistantmessagesentinel'
_NEXT = 'nextusermessage'

# Answers that templates are known to rewrite, and what such an answer is called.
_PROBES = {
  'space around an answer': f'\n {_ANSWER} \n',
  'a thought before an answer': f'<think>\nthought\n</think>\n\n{_ANSWER}',
}


class ChatTokenizer:
  """A tokenizer with a chat format.

  Text of a special token inside a user's message becomes that token, as in `transformers`. Nothing
  is put in front of what the template writes: a beginning-of-sequence token is there if, and only
  if, the template writes it.

  Args:
    vocabulary: text to ids and back.
    template: the chat format.
    end_of_turn_ids: every id that ends a turn, in any order: the one that the template writes
      after an assistant message is moved to the front.
    pad_id: fills empty slots.

  Raises:
    ValueError: an id lies outside the vocabulary, or the template cannot be continued after an
      assistant turn: it refuses the messages, drops or alters what the assistant wrote, or does
      not end the turn with one of `end_of_turn_ids`.
  """

  def __init__(
    self,
    vocabulary: Vocabulary,
    template: ChatTemplate,
    *,
    end_of_turn_ids: Sequence[int],
    pad_id: int,
  ):
    self.vocabulary = vocabulary
    self.template = template
    self.vocab_size = vocabulary.size
    for token_id in (pad_id, *end_of_turn_ids):
      if not 0 <= token_id < self.vocab_size:
        raise ValueError(f'token id {token_id} is outside the vocabulary of {self.vocab_size}')
    self.pad_id = pad_id
    written_id = self._check_template(end_of_turn_ids)
    self.end_of_turn_ids = tuple(dict.fromkeys([written_id, *end_of_turn_ids]))
    self.notes = self._find_notes()
    for note in self.notes:
      logging.warning('%s', note)

  def encode(self, text: str) -> list[int]:
    """Returns the ids of plain text, without a beginning-of-sequence id."""
    return self.vocabulary.encode(text)

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text of ids, special tokens left out."""
    return self.vocabulary.decode([int(i) for i in ids if i < self.vocab_size])

  def render(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
    """Renders any conversation with the chat template; see `ChatTemplate.render`."""
    return self.template.render(messages, add_generation_prompt)

  def prompt_ids(self, user_text: str) -> list[int]:
    """Returns the user's first message in the chat format, with the assistant's header."""
    return self.encode(self._render(user_text))

  def followup_ids(self, user_text: str) -> list[int]:
    """Returns the end of the turn's format, the user's next message and the assistant's header."""
    ids = self.encode(self._after_answer(user_text))
    if ids[:1] != [self.end_of_turn_ids[0]]:
      raise ValueError(
        f'the chat template ends an assistant turn with id {ids[:1]} before this message, and '
        f'with id {self.end_of_turn_ids[0]} before others: it cannot be continued'
      )
    return ids[1:]

  def _render(self, *texts: str) -> str:
    """Renders messages of user and assistant in turn, and the assistant's header."""
    roles = ('user', 'assistant') * len(texts)
    messages = [{'role': r, 'content': t} for r, t in zip(roles, texts, strict=False)]
    return self.render(messages, add_generation_prompt=True)

  def _after_answer(self, user_text: str) -> str:
    """Renders two turns and returns the text behind the first answer."""
    text = self._render(_FIRST, _ANSWER, user_text)
    _, found, after = text.partition(_ANSWER)
    if not found:
      raise ValueError(
        'the chat template drops or alters what the assistant wrote: a stand-in message does not '
        f'come out as it went in; rendered: {text[-200:]!r}'
      )
    return after

  def _check_template(self, end_of_turn_ids: Sequence[int]) -> int:
    """Returns the end-of-turn id that the template writes after an assistant message."""
    after = self._after_answer(_NEXT)
    if _ANSWER in after or after.count(_NEXT) != 1:
      raise ValueError(
        'the chat template repeats or drops messages, so turn 2 cannot be appended to turn 1; '
        f'after the assistant message it renders {after[:200]!r}'
      )
    ids = self.encode(after)
    if not ids or ids[0] not in end_of_turn_ids:
      names = [self.vocabulary.id_to_token(i) for i in end_of_turn_ids]
      raise ValueError(
        f'the chat template does not end an assistant turn with one of {names}; '
        f'after the message it writes {after[:80]!r}'
      )
    return ids[0]

  def _find_notes(self) -> tuple[str, ...]:
    """Tries what the template would do to turn 1 when it renders turn 2."""
    notes = []
    sampled = self._render(_FIRST)
    whole = self._render(_FIRST, _ANSWER, _NEXT)
    before, _, after = whole.partition(_ANSWER)
    if before != sampled:
      notes.append(
        'In turn 2 the chat template would write what stands before the first answer as '
        f'{before!r}; it stays what the answer was sampled under, {sampled!r}.'
      )
    for what, answer in _PROBES.items():
      text = self._render(_FIRST, answer, _NEXT)
      written = text.removeprefix(before).removesuffix(after)
      if written != answer:
        notes.append(
          f'In turn 2 the chat template would not keep {what}: {answer!r} would become '
          f'{written!r}; the ids that were sampled are kept.'
        )
    if self.template.asked_date:
      notes.append(
        f"The chat template asks for today's date; it gets {self.template.date:%Y-%m-%d} on "
        'every day, so that a prompt stays what it was.'
      )
    return tuple(notes)
