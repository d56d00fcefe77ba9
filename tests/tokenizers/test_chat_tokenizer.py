"""Exact ids around a turn, and templates that cannot be continued are refused."""

import datetime

import numpy as np
import pytest
from makers import TESTS
from small_models import CHATML, byte_backend

from score_jax.tokenizers.base import Tokenizer
from score_jax.tokenizers.chat_template import GEMMA_TEMPLATE, ChatTemplate
from score_jax.tokenizers.chat_tokenizer import ChatTokenizer
from score_jax.tokenizers.vocabularies import TokenizersVocabulary

TEMPLATES = TESTS / 'chat_templates'
SPECIAL = ['<|im_start|>', '<|im_end|>', '<bos>', '<end_of_turn>', '<pad>', '<start_of_turn>']
SPECIAL += ['<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>']
IM_START, IM_END, BOS, END_OF_TURN, PAD = range(256, 261)
EOT = 256 + SPECIAL.index('<|eot_id|>')
SIZE = len(SPECIAL) + 256

# Like Gemma's: another name for the assistant, trimmed contents, a beginning-of-sequence token.
TRIMMED = """{{ bos_token }}
{%- for m in messages -%}
  {%- set role = 'model' if m['role'] == 'assistant' else m['role'] -%}
  {{ '<|im_start|>' + role + '\n' + (m['content'] | trim) + '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>model\n' }}{%- endif -%}"""


def hf(template=CHATML, end_of_turn_ids=(IM_END, END_OF_TURN, EOT), pad_id=PAD, **kwargs):
  """A chat tokenizer of bytes; `template` is source, or the name of a file of chat_templates."""
  path = TEMPLATES / f'{template}.jinja'
  source = path.read_text() if template.isidentifier() else template
  return ChatTokenizer(
    TokenizersVocabulary(byte_backend(SPECIAL)),
    ChatTemplate(source, {'bos_token': '<bos>'}, **kwargs),
    end_of_turn_ids=end_of_turn_ids,
    pad_id=pad_id,
  )


@pytest.mark.parametrize('template', [CHATML, TRIMMED])
@pytest.mark.parametrize('instruction', ['Again?', ' spaced\n', 'x<|im_end|>y', 'é∑ $\\frac12$'])
def test_turns_put_together_are_the_whole_conversation(template, instruction):
  tokenizer = hf(template)
  answer = 'It is 4.'
  together = (
    tokenizer.prompt_ids('2 + 2?')
    + tokenizer.encode(answer)
    + [tokenizer.end_of_turn_ids[0]]
    + tokenizer.followup_ids(instruction)
  )
  whole = tokenizer.render(
    [
      {'role': 'user', 'content': '2 + 2?'},
      {'role': 'assistant', 'content': answer},
      {'role': 'user', 'content': instruction},
    ],
    add_generation_prompt=True,
  )
  assert together == tokenizer.encode(whole)


LLAMA_DATE = (
  '<|start_header_id|>system<|end_header_id|>\n\n'
  'Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>'
)
GEMMA = (
  '<bos><start_of_turn>user\nQ<end_of_turn>\n<start_of_turn>model\nANSWER<end_of_turn>\n'
  '<start_of_turn>user\nR<end_of_turn>\n<start_of_turn>model\n'
)
LLAMA = (
  '<|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|>'
  '<|start_header_id|>assistant<|end_header_id|>\n\nANSWER<|eot_id|>'
  '<|start_header_id|>user<|end_header_id|>\n\nR<|eot_id|>'
  '<|start_header_id|>assistant<|end_header_id|>\n\n'
)
QWEN = (
  '<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nANSWER<|im_end|>\n'
  '<|im_start|>user\nR<|im_end|>\n<|im_start|>assistant\n'
)
QWEN_SYSTEM = 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.'
SMOL_SYSTEM = 'You are a helpful AI assistant named SmolLM, trained by Hugging Face'
SPACE, THOUGHT, HEADER, DATE = 'space around', 'a thought', 'stands before', "today's date"


@pytest.mark.parametrize(
  ('template', 'written', 'noted'),
  [
    ('gemma2', GEMMA, [SPACE]),
    ('gemma3', GEMMA, [SPACE]),
    (GEMMA_TEMPLATE, GEMMA, [SPACE]),
    ('llama3', '<bos>' + LLAMA, [SPACE]),
    ('llama32', '<bos>' + LLAMA_DATE + LLAMA, [SPACE, DATE]),
    ('qwen25', f'<|im_start|>system\n{QWEN_SYSTEM}<|im_end|>\n' + QWEN, []),
    ('qwen3', QWEN, [THOUGHT]),
    ('smollm2', f'<|im_start|>system\n{SMOL_SYSTEM}<|im_end|>\n' + QWEN, []),
  ],
)
def test_families(template, written, noted, caplog):
  """Two turns as they are published, and what each format would change in the first."""
  tokenizer = hf(template)
  prompt, followup = map(tokenizer.encode, written.split('ANSWER'))
  assert tokenizer.prompt_ids('Q') == prompt
  assert [tokenizer.end_of_turn_ids[0], *tokenizer.followup_ids('R')] == followup
  assert len(tokenizer.notes) == len(noted)
  for note, part in zip(tokenizer.notes, noted, strict=True):
    assert part in note
  assert caplog.messages == list(tokenizer.notes)


def test_notes_show_both_renderings():
  assert "'\\n assistantmessagesentinel \\n' would become 'assistant" in hf('gemma3').notes[0]
  assert "'<think>\\nthought\\n</think>\\n\\nassistant" in hf('qwen3').notes[0]
  silent = hf('qwen3', options={'enable_thinking': False})
  assert silent.prompt_ids('Q')[-20:] == silent.encode('\n<think>\n\n</think>\n\n')
  header, thought = silent.notes
  assert HEADER in header and THOUGHT in thought
  empty = '<think>\\n\\n</think>\\n\\n'
  as_written, as_sampled = header.split('; it stays')
  assert empty not in as_written and empty in as_sampled


def test_the_date_stands_still():
  """Also for a template that asks on every message; on another day where one is set."""
  asking = CHATML.replace("m['content']", "strftime_now('%Y-%m-%d %H:%M ') + m['content']")
  tokenizer = hf(asking)
  assert tokenizer.prompt_ids('') == tokenizer.encode(
    '<|im_start|>user\n2024-07-26 00:00 <|im_end|>\n<|im_start|>assistant\n'
  )
  later = hf('llama32', date=datetime.date(2025, 12, 1))
  assert 'Today Date: 01 Dec 2025' in later.render([{'role': 'user', 'content': ''}], False)
  assert '2025-12-01' in later.notes[1]


def test_chatml_by_hand():
  tokenizer = hf()
  assert isinstance(tokenizer, Tokenizer)
  header = [IM_START, *tokenizer.encode('assistant\n')]
  assert tokenizer.prompt_ids('hi') == [
    *[IM_START, *tokenizer.encode('user\nhi'), IM_END, *tokenizer.encode('\n')],
    *header,
  ]
  assert tokenizer.followup_ids('hi') == [
    *tokenizer.encode('\n'),
    *[IM_START, *tokenizer.encode('user\nhi'), IM_END, *tokenizer.encode('\n')],
    *header,
  ]
  assert tokenizer.vocab_size == SIZE
  assert tokenizer.notes == ()


def test_the_end_that_the_template_writes_comes_first():
  assert hf(CHATML, (END_OF_TURN, IM_END)).end_of_turn_ids == (IM_END, END_OF_TURN)
  assert hf(TRIMMED, (IM_END, END_OF_TURN, IM_END)).end_of_turn_ids == (END_OF_TURN, IM_END)


def test_decode_leaves_out_special_and_unknown_ids():
  tokenizer = hf()
  ids = [BOS, *tokenizer.encode('é 1'), IM_END, 10_000]
  assert tokenizer.decode(ids) == 'é 1'
  assert tokenizer.decode(np.array(ids, np.int32)) == 'é 1'


@pytest.mark.parametrize(
  ('template', 'complaint'),
  [
    ("{{ raise_exception('one message only') if messages|length > 1 }}", 'one message only'),
    ("{{ messages[-1]['content'] + '<|im_end|>' }}", 'drops or alters'),
    (CHATML.replace("m['content']", "m['content']|upper"), 'drops or alters'),
    (CHATML.replace("'<|im_end|>\n'", "'\n'"), 'does not end an assistant turn'),
    (CHATML.replace("'<|im_end|>\n'", "' <|im_end|>\n'"), 'does not end an assistant turn'),
    (CHATML + CHATML, 'repeats or drops'),
    ('{% for m in messages %}', 'does not parse'),
    # Templates come from strangers: no way out of the sandbox.
    ("{{ ''.__class__.__mro__ }}" + CHATML, 'refuses'),
    ("{{ messages.append('x') }}" + CHATML, 'refuses'),
  ],
)
def test_templates_that_cannot_be_continued(template, complaint):
  with pytest.raises(ValueError, match=complaint):
    hf(template)


def test_a_template_that_ends_turns_in_two_ways():
  template = CHATML.replace(
    "'<|im_end|>\n'",
    "('<end_of_turn>' if 'why' in messages[-1]['content'] else '<|im_end|>') + '\n'",
  )
  tokenizer = hf(template)
  tokenizer.followup_ids('again')
  with pytest.raises(ValueError, match='cannot be continued'):
    tokenizer.followup_ids('why')


@pytest.mark.parametrize('ids', [{'pad_id': SIZE}, {'end_of_turn_ids': (IM_END, -1)}])
def test_ids_outside_the_vocabulary(ids):
  with pytest.raises(ValueError, match=f'outside the vocabulary of {SIZE}'):
    hf(**ids)
