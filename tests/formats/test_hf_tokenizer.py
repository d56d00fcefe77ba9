"""Tokenizers of files: which file says what, what does not fit, and what is damaged."""

import json

import pytest
import sentencepiece
from makers import TESTS
from small_models import write_sentencepiece

from score_jax.formats.hf_tokenizer import read_tokenizer

TEMPLATES = TESTS / 'chat_templates'
GEMMA = (TEMPLATES / 'gemma3.jinja').read_text()
CHATML = (TEMPLATES / 'qwen3.jinja').read_text()
TEXT, IM_START, IM_END, EOT = range(256, 260)
SIZE = 260


def write(folder, name, value):
  (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))


def test_bpe_folder(bpe):
  tokenizer = read_tokenizer(bpe, num_rows=SIZE)
  assert (tokenizer.vocab_size, tokenizer.pad_id) == (SIZE, IM_END)
  assert tokenizer.end_of_turn_ids == (IM_END, EOT, TEXT)
  assert tokenizer.decode(tokenizer.encode('longer than three')) == 'longer than three'
  assert len(tokenizer.encode('ab')) == 2
  prompt = tokenizer.prompt_ids('Q')
  assert prompt == tokenizer.encode('<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n')
  assert prompt[0] == IM_START


def test_which_file_has_the_last_word(bpe):
  """The file chat_template.jinja before tokenizer_config.json; what is asked for before both."""
  write(bpe, 'chat_template.jinja', CHATML.replace('user', 'USER') + 'from a file')
  assert read_tokenizer(bpe).render([], True).endswith('from a file')
  asked = read_tokenizer(bpe, chat_template=CHATML + 'asked for')
  assert asked.render([], True).endswith('asked for')
  (bpe / 'chat_template.jinja').unlink()
  several = [{'name': 'tool_use', 'template': 'x'}, {'name': 'default', 'template': CHATML + 'y'}]
  config = {'chat_template': several, 'eos_token': 'none such', 'bos_token': {'content': 'a'}}
  write(bpe, 'tokenizer_config.json', config | {'add_bos_token': True})
  write(
    bpe, 'special_tokens_map.json', {'bos_token': 'b', 'pad_token': {'content': '<|endoftext|>'}}
  )
  older = read_tokenizer(bpe)
  assert older.render([], True).endswith('y')
  assert older.pad_id == TEXT
  names = {'bos_token': 'b', 'eos_token': 'none such', 'pad_token': '<|endoftext|>'}
  assert older.template.special_tokens == names
  write(bpe, 'tokenizer_config.json', config | {'added_tokens_decoder': {}})
  assert read_tokenizer(bpe).template.special_tokens['bos_token'] == 'a'


def test_ends_of_turn(bpe):
  """The one that the format writes, then those of the files, then those of known names."""
  write(bpe, 'generation_config.json', {'eos_token_id': [65, EOT]})
  write(bpe, 'config.json', {'eos_token_id': 66})
  assert read_tokenizer(bpe).end_of_turn_ids == (IM_END, 65, EOT, 66, TEXT)
  write(bpe, 'generation_config.json', {'eos_token_id': 67})
  write(bpe, 'config.json', {'eos_token_id': None})
  assert read_tokenizer(bpe).end_of_turn_ids == (IM_END, 67, EOT, TEXT)


def test_options_and_date(bpe):
  plain, silent = read_tokenizer(bpe), read_tokenizer(bpe, options={'enable_thinking': False})
  extra = silent.encode('<think>\n\n</think>\n\n')
  assert silent.prompt_ids('Q') == plain.prompt_ids('Q') + extra


def test_gemma_folder(gemma):
  tokenizer = read_tokenizer(gemma, num_rows=10_000)
  model = sentencepiece.SentencePieceProcessor(model_file=str(gemma / 'tokenizer.model'))
  pad, eos, bos, unk, start, end, _, blank = range(8)
  user, newline = model.encode('user\n'), model.encode('\n')
  answer = [start, *model.encode('model\n')]
  question = [*user, *model.encode('the answer?'), end, *newline, *answer]
  assert tokenizer.prompt_ids(' the answer?\n') == [bos, start, *question]
  assert tokenizer.followup_ids('the answer?') == [*newline, start, *question]
  assert tokenizer.end_of_turn_ids == (end, eos)  # and not `</s>`, which is the HTML tag here
  assert tokenizer.pad_id == pad
  assert tokenizer.encode('a<bos><unk>  b\n\n') == [
    *model.encode('a'),
    *[bos, unk],
    *model.encode('  b'),
    blank,
  ]
  text = '  naïve 漢字 🙂\t</s>\n\n \n'
  ids = [bos, start, *tokenizer.encode(text), end, 999_999]
  assert tokenizer.decode(ids) == text


def test_gemma_folder_with_more_tokens(gemma, caplog):
  """Tokens outside the model, one with a row and one without; a name for an unused piece."""
  size = read_tokenizer(gemma).vocab_size
  added = {
    str(size): {'content': '<image>', 'special': True},
    str(size + 1): {'content': '<sound>', 'special': True},
    '7': {'content': '\n\n', 'special': False},
  }
  write(gemma, 'tokenizer_config.json', {'added_tokens_decoder': added, 'chat_template': GEMMA})
  tokenizer = read_tokenizer(gemma, num_rows=size + 1)
  assert tokenizer.vocab_size == size + 1
  assert tokenizer.encode('<image>') == [size]
  assert tokenizer.decode([size, *tokenizer.encode('<sound>\n\n')]) == '<sound>\n\n'
  assert "['<sound>']" in caplog.text
  assert read_tokenizer(gemma).encode('<sound>') == [size + 1]


def test_added_tokens_beyond_the_embedding(bpe, caplog):
  """As in Gemma 3 1B, whose image token has no row: its text is plain text."""
  tokenizer = read_tokenizer(bpe, num_rows=SIZE - 1)
  assert tokenizer.vocab_size == SIZE - 1
  assert tokenizer.decode(tokenizer.encode('<|eot_id|>')) == '<|eot_id|>'
  assert tokenizer.end_of_turn_ids == (IM_END, TEXT)
  assert "['<|eot_id|>']" in caplog.text
  with pytest.raises(ValueError, match=r"tokenizer\.json: the chat template writes '<\|im_end\|>'"):
    read_tokenizer(bpe, num_rows=IM_END)


def test_vocabularies_that_do_not_fit(bpe):
  with pytest.raises(ValueError, match=r'tokenizer\.json: the tokenizer has 260 ids .* 255 rows'):
    read_tokenizer(bpe, num_rows=255)
  (bpe / 'tokenizer.json').unlink()
  write_sentencepiece(bpe)
  with pytest.raises(ValueError, match=r'tokenizer\.model: the tokenizer has \d+ ids .* 100 rows'):
    read_tokenizer(bpe, num_rows=100)


@pytest.mark.parametrize(
  ('name', 'contents', 'complaint'),
  [
    ('tokenizer.json', '{"model": {"type": "BPE"', r'tokenizer\.json is damaged'),
    ('tokenizer.json', '{"version": "1.0"}', r'tokenizer\.json is damaged'),
    ('tokenizer.json', b'\xff\xfe', r'tokenizer\.json is damaged'),
    ('tokenizer_config.json', '{"eos_token": ', r'tokenizer_config\.json is damaged'),
    ('tokenizer_config.json', '[1]', r'tokenizer_config\.json is damaged: it holds a list'),
    ('tokenizer_config.json', '{}', 'has no chat template'),
    ('tokenizer_config.json', '{"chat_template": [{"name": "x", "template": "y"}]}', "'default'"),
    ('chat_template.jinja', b'\xff', r'chat_template\.jinja is damaged'),
    ('chat_template.jinja', '{% for %}', 'the chat template does not parse'),
    ('chat_template.jinja', '{{ messages }}', r'test_damage.*: the chat template'),
    ('generation_config.json', '{"eos_token_id": 260}', r'eos_token_id=260 is outside .* of 260'),
    ('generation_config.json', '', r'generation_config\.json is damaged'),
  ],
)
def test_damage(bpe, name, contents, complaint):
  (bpe / name).write_bytes(contents.encode() if isinstance(contents, str) else contents)
  with pytest.raises(ValueError, match=complaint):
    read_tokenizer(bpe)


def test_missing_vocabulary(tmp_path):
  with pytest.raises(ValueError, match=r'neither a tokenizer\.json nor a tokenizer\.model'):
    read_tokenizer(tmp_path)


def test_sentencepiece_damage(gemma):
  write_sentencepiece(gemma, user_defined_symbols=[])
  with pytest.raises(ValueError, match='no chat template'):
    read_tokenizer(gemma)
  write_sentencepiece(gemma, add_dummy_prefix=True)
  with pytest.raises(ValueError, match=r"tokenizer\.model: .* reads ' x  x ' as '▁▁x▁▁x▁'"):
    read_tokenizer(gemma)
  whole = (gemma / 'tokenizer.model').read_bytes()
  for damaged in (whole[: len(whole) // 2], b'', b'x'):
    (gemma / 'tokenizer.model').write_bytes(damaged)
    with pytest.raises(ValueError, match=r'tokenizer\.model: not a SentencePiece model'):
      read_tokenizer(gemma)
