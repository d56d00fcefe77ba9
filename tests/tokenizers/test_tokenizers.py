"""Tokenizers: exact ids around a turn, and templates that cannot be continued are refused."""

import datetime
import io

import numpy as np
import pytest
import sentencepiece
import tokenizers
from makers import TESTS
from tokenizers import decoders, models, pre_tokenizers

from score_jax.tokenizers.base import SentencePieceTokenizer, Tokenizer, check_fit
from score_jax.tokenizers.chat_template import GEMMA_TEMPLATE, ChatTemplate
from score_jax.tokenizers.chat_tokenizer import ChatTokenizer
from score_jax.tokenizers.vocabularies import TokenizersVocabulary

TEMPLATES = TESTS / 'chat_templates'
SPECIAL = ['<|im_start|>', '<|im_end|>', '<bos>', '<end_of_turn>', '<pad>', '<start_of_turn>']
SPECIAL += ['<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>']
IM_START, IM_END, BOS, END_OF_TURN, PAD = range(5)
EOT = SPECIAL.index('<|eot_id|>')
SIZE = len(SPECIAL) + 256

CHATML = (
  "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
  "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Like Gemma's: another name for the assistant, trimmed contents, a beginning-of-sequence token.
TRIMMED = """{{ bos_token }}
{%- for m in messages -%}
  {%- set role = 'model' if m['role'] == 'assistant' else m['role'] -%}
  {{ '<|im_start|>' + role + '\n' + (m['content'] | trim) + '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>model\n' }}{%- endif -%}"""


def byte_backend():
  """A tokenizer of single bytes and the special tokens: what it does can be seen."""
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  vocab = {token: i for i, token in enumerate(SPECIAL + alphabet)}
  backend = tokenizers.Tokenizer(models.BPE(vocab, []))
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = decoders.ByteLevel()
  backend.add_special_tokens(SPECIAL)
  return backend


def hf(template=CHATML, end_of_turn_ids=(IM_END, END_OF_TURN, EOT), pad_id=PAD, **kwargs):
  """A chat tokenizer of bytes; `template` is source, or the name of a file of chat_templates."""
  path = TEMPLATES / f'{template}.jinja'
  source = path.read_text() if template.isidentifier() else template
  return ChatTokenizer(
    TokenizersVocabulary(byte_backend()),
    ChatTemplate(source, {'bos_token': '<bos>'}, **kwargs),
    end_of_turn_ids=end_of_turn_ids,
    pad_id=pad_id,
  )


def train_sentencepiece(path, **kwargs):
  """Writes a tiny SentencePiece model of digits and signs."""
  out = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(['1 + 2 = 3', '4 + 5 = 9', '6 + 7 + 8 = 21', '0']),
    model_writer=out,
    model_type='char',
    vocab_size=24,
    hard_vocab_limit=False,
    minloglevel=2,
    **kwargs,
  )
  path.write_bytes(out.getvalue())
  return path


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
  """Also for a template that asks on every message, and as told."""
  asking = CHATML.replace("m['content']", "strftime_now('%Y-%m-%d %H:%M ') + m['content']")
  tokenizer = hf(asking)
  assert tokenizer.prompt_ids('') == tokenizer.encode(
    '<|im_start|>user\n2024-07-26 00:00 <|im_end|>\n<|im_start|>assistant\n'
  )
  told = hf('llama32', date=datetime.date(2025, 12, 1))
  assert 'Today Date: 01 Dec 2025' in told.render([{'role': 'user', 'content': ''}], False)
  assert '2025-12-01' in told.notes[1]


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


def test_template_environment():
  """The filters and globals that templates rely on."""
  extra = (
    "{{ {'a': '<é>'} | tojson }}{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}"
    "{{ i }}{% endfor %}{% generation %}g{{ bos_token }}{% endgeneration %}{{ strftime_now('%%') }}"
    '\n  {% if true %}\nt\n  {% endif %}\n'
  )
  text = hf(CHATML + extra).render([], add_generation_prompt=False)
  assert text == '{"a": "<é>"}1g<bos>%\nt\n'
  scoped = '{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}'
  assert ChatTemplate(scoped).render([]) == '21'


def test_check_fit():
  check_fit(10, 12, 'here')
  with pytest.raises(ValueError, match='here: the tokenizer has 13 ids .* 12 rows'):
    check_fit(13, 12, 'here')


def test_sentencepiece(tmp_path):
  path = train_sentencepiece(tmp_path / 'tiny.model', pad_id=3)
  tokenizer = SentencePieceTokenizer(path)
  oracle = sentencepiece.SentencePieceProcessor(model_file=str(path))
  assert isinstance(tokenizer, Tokenizer)
  assert tokenizer.vocab_size == oracle.vocab_size()
  assert tokenizer.pad_id == 3
  assert tokenizer.end_of_turn_ids == (oracle.eos_id(),)
  ids = oracle.encode('12 + 3 =')
  assert tokenizer.prompt_ids('12 + 3 =') == tokenizer.followup_ids('12 + 3 =') == ids
  assert tokenizer.decode(np.array([*ids, oracle.eos_id(), 3, 999], np.int32)) == '12 + 3 ='
  with_bos = SentencePieceTokenizer(path, add_bos=True)
  assert with_bos.prompt_ids('1') == [oracle.bos_id(), *oracle.encode('1')]
  assert with_bos.followup_ids('1') == oracle.encode('1')


def test_sentencepiece_without_pad_pads_with_the_end(tmp_path):
  tokenizer = SentencePieceTokenizer(train_sentencepiece(tmp_path / 'tiny.model'))
  assert tokenizer.pad_id == tokenizer.end_of_turn_ids[0]


def test_sentencepiece_errors(tmp_path):
  with pytest.raises(ValueError, match=r'no SentencePiece model at .*gone\.model'):
    SentencePieceTokenizer(tmp_path / 'gone.model')
  (tmp_path / 'bad.model').write_bytes(b'not a model')
  with pytest.raises(ValueError, match=r'bad\.model is not a SentencePiece model'):
    SentencePieceTokenizer(tmp_path / 'bad.model')
  with pytest.raises(ValueError, match='no end-of-sequence'):
    SentencePieceTokenizer(train_sentencepiece(tmp_path / 'no_eos.model', eos_id=-1))
  no_bos = train_sentencepiece(tmp_path / 'no_bos.model', bos_id=-1)
  with pytest.raises(ValueError, match='add_bos=False'):
    SentencePieceTokenizer(no_bos, add_bos=True)


def test_importing_is_cheap(run_python):
  code = (
    'import sys, score_jax.tokenizers.base, score_jax.tokenizers.chat_tokenizer; '
    "print([m for m in ('jax', 'tokenizers', 'jinja2', 'sentencepiece') if m in sys.modules])"
  )
  result = run_python('-c', code)
  assert result.stdout.strip() == '[]', result.stderr
