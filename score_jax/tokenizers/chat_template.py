"""Chat templates: a conversation to text, as `transformers` renders it.

A template is jinja2 source that comes with a model. It sees `messages`, `add_generation_prompt`,
the names of the special tokens (`bos_token`, ...), and `tools` and `documents`, which are none.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

# The date that Llama 3.1 and 3.2 fall back to where a renderer has no clock.
DEFAULT_DATE = datetime.date(2024, 7, 26)

# The format of Gemma, for folders that hold only its SentencePiece model.
GEMMA_TEMPLATE = """{{ bos_token }}
{%- for message in messages -%}
  {%- set name = 'model' if message.role == 'assistant' else message.role -%}
  {{ '<start_of_turn>' ~ name ~ '\\n' ~ message.content | trim ~ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}"""


class ChatTemplate:
  """A compiled chat template.

  Args:
    source: jinja2 source.
    special_tokens: names for the template, such as `{'bos_token': '<s>'}`.
    date: what a template gets that asks for today's date. From `transformers` it gets the day on
      which that runs, so that the same problem has another prompt tomorrow; a run must not change
      while it waits, so here the date is part of the template.
    options: more variables for the template, such as `{'enable_thinking': False}`.

  Attributes:
    asked_date: whether the template has asked for the date so far.
    date: that of the arguments.

  Raises:
    ValueError: the source does not parse.

  Example:
    >>> template = ChatTemplate('{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}')
    >>> template.render([{'role': 'user', 'content': 'Hi'}])
    '<user>Hi'
  """

  def __init__(
    self,
    source: str,
    special_tokens: Mapping[str, str] | None = None,
    date: datetime.date = DEFAULT_DATE,
    options: Mapping[str, Any] | None = None,
  ):
    self.source = source
    self.special_tokens = dict(special_tokens or {})
    self.date = date
    self.asked_date = False
    self._options = dict(options or {})
    self._template = _compile(source, self._strftime_now)

  def render(
    self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = False
  ) -> str:
    """Renders a conversation.

    Args:
      messages: `{'role': ..., 'content': ...}`, oldest first.
      add_generation_prompt: end with the header under which the assistant writes.

    Returns:
      The text.

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
        **self.special_tokens | self._options,
      )
    except (jinja2.TemplateError, TypeError) as error:
      roles = ', '.join(message['role'] for message in messages)
      raise ValueError(f'the chat template refuses messages of [{roles}]: {error}') from error

  def _strftime_now(self, pattern: str) -> str:
    self.asked_date = True
    return self.date.strftime(pattern)


def _compile(source: str, strftime_now: Any) -> Any:
  """Compiles a template with the filters, globals and tags that `transformers` offers.

  Templates come with models from strangers, hence the sandbox.
  """
  import jinja2
  import jinja2.ext
  import jinja2.sandbox

  class Generation(jinja2.ext.Extension):
    """Lets `{% generation %}` blocks through; they only mark what the assistant wrote."""

    tags = {'generation'}

    def parse(self, parser):
      line = next(parser.stream).lineno
      body = parser.parse_statements(['name:endgeneration'], drop_needle=True)
      # A call, so that what the block sets stays inside, as it does in `transformers`.
      return jinja2.nodes.CallBlock(self.call_method('_same'), [], [], body).set_lineno(line)

    def _same(self, caller):
      return caller()

  def raise_exception(message):
    raise jinja2.TemplateError(message)

  def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    # jinja2's own filter escapes HTML characters.
    return json.dumps(
      value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )

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
