"""Token ids and chats: ours and those of `transformers`, on 1,000 mixed strings.

The vocabularies are made here, so that nothing is downloaded: a SentencePiece model like Gemma's,
byte-level BPE cut as Llama 3, Qwen and SmolLM2 cut text, and a Unigram. Chats are written by the
templates of tests/chat_templates. SmolLM2's real vocabulary and template come from its GGUF file.
"""

import datetime
import io
import json
import random
from functools import partial

import pytest
import sentencepiece
import tokenizers
from makers import TESTS
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from tokenizers.normalizers import NFC, NFKC

from score_jax.formats.gguf import read_tokenizer as read_gguf_tokenizer
from score_jax.formats.hf_tokenizer import read_tokenizer
from score_jax.formats.hf_tokenizer_files import tokenizer_files
from score_jax.tokenizers.chat_template import ChatTemplate

transformers = pytest.importorskip('transformers', reason='needs the extra [parity]')
chat_template_utils = pytest.importorskip('transformers.utils.chat_template_utils')

pytestmark = pytest.mark.filterwarnings('default')  # their warnings are not ours to mend

TEMPLATES = TESTS / 'chat_templates'
NUM_STRINGS = 1000
GEMMA = ['<start_of_turn>', '<end_of_turn>']
LLAMA = ['<|begin_of_text|>', '<|end_of_text|>', '<|start_header_id|>', '<|end_header_id|>']
LLAMA += ['<|eot_id|>', '<|eom_id|>']
CHATML = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
FRAGMENTS = [
  *"the answer is; Find; it's they'll WE'VE; x;Compute; naïve café".split(';'),
  *'Ελληνικά; русский;漢字かな交じり文;한국어;عربى;שָׁלוֹם;हिन्दी;ไทย'.split(';'),
  *'e\u0301;\u00e9;ﬁ;ǆ;Å;\u200b;\u200d;\u00a0;\u3000;\u202e;\ufeff;\u2028'.split(';'),
  *'🙂;👩‍👩‍👧;🇩🇪;\ufffd;\x00;\x07;\x7f;½;²;٣٤;Ⅻ;𝔸'.split(';'),
  *' ;  ;   ;         ;\t;\t\t;\n;\n\n;\n\n\n;\r\n;\r; \n '.split(';'),
  *'1;12;345;67890;3.14;1,000;-42;x1y2;<0x0A>;Ġ;<b>;</s>;`code`;```python\n'.split(';'),
  *r'$\frac{1}{2}+\sqrt{3}$;\boxed{42};\left(\mathbb{R}\right);$x^{2}-5x+6=0$'.split(';'),
  *r'\[\begin{pmatrix}1&2\\3&4\end{pmatrix}\];a_b__c--d...!?!?((()))'.split(';'),
  *'def f(x):\n    return {"a": [-1e-9]}  # ok\n;for i in range(9):\n\t2 + 2\n'.split(';'),
  *(GEMMA + LLAMA + CHATML + ['<bos>', '<eos>', '<pad>', '<unk>', '<mask>', '<|im_', 'start|>']),
]
CONVERSATIONS = [
  [('user', 'What is 2 + 2?')],
  [('user', ' \n spaces \t')],
  [('user', 'Q'), ('assistant', ' A\n')],
  [('user', 'Q'), ('assistant', '<think>\nhm\n</think>\n\nA'), ('user', 'x<|im_end|>y<eos>')],
  [('user', 'é "quoted" <b>\\frac{1}{2}</b>'), ('assistant', 'A'), ('user', '漢字 🙂')],
]
TEMPLATE_NAMES = ['gemma2', 'gemma3', 'llama3', 'llama32', 'qwen25', 'qwen3', 'smollm2']


def mixed_strings():
  """Fragments in random order, sometimes with a space between; the empty string first."""
  rng = random.Random(7)
  strings = ['', *FRAGMENTS]
  while len(strings) < NUM_STRINGS:
    parts = rng.choices(FRAGMENTS, k=rng.randint(1, 12))
    strings.append(rng.choice(['', ' ']).join(parts))
  return strings


STRINGS = mixed_strings()


def corpus():
  """What the small vocabularies are trained on: letters of many scripts, but not all of them."""
  return [text for text in STRINGS[1::3] if '\x00' not in text and '<' not in text]


def write_config(folder, **config):
  (folder / 'tokenizer_config.json').write_text(json.dumps(config))


def gemma_folder(folder):
  """A SentencePiece model trained as Gemma's was."""
  out = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(corpus()),
    model_writer=out,
    model_type='bpe',
    vocab_size=700,
    hard_vocab_limit=False,
    character_coverage=0.98,
    byte_fallback=True,
    split_digits=True,
    add_dummy_prefix=False,
    remove_extra_whitespaces=False,
    allow_whitespace_only_pieces=True,
    normalization_rule_name='identity',
    user_defined_symbols=['<mask>', *GEMMA, '\n\n', '\n\n\n', '▁▁', '▁▁▁▁'],
    minloglevel=2,
    **{f'{name}_id': i for i, name in enumerate(('pad', 'eos', 'bos', 'unk'))},
    **{f'{name}_piece': f'<{name}>' for name in ('pad', 'eos', 'bos', 'unk')},
  )
  (folder / 'tokenizer.model').write_bytes(out.getvalue())
  write_config(folder, tokenizer_class='GemmaTokenizer')


def converted_gemma_folder(folder):
  """The same model as `transformers` writes it: a tokenizer.json."""
  gemma_folder(folder)
  transformers.GemmaTokenizer.from_pretrained(folder).save_pretrained(folder)
  (folder / 'tokenizer.model').unlink()


def cut(digits):
  """The pattern that cuts text for Llama 3 and Qwen, but for how many digits stay together."""
  return (
    rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}"
    r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
  )


def bpe_folder(folder, cut, special, normalizer=None, bos=None):
  """Byte-level BPE, saved as tokenizer.json."""
  backend = tokenizers.Tokenizer(models.BPE(ignore_merges=bos is not None))
  steps = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut is None)]
  if cut is None:
    steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
  else:
    steps.insert(0, pre_tokenizers.Split(tokenizers.Regex(cut), behavior='isolated'))
  backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
  backend.decoder = decoders.ByteLevel()
  if normalizer:
    backend.normalizer = normalizer
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
  backend.train_from_iterator(corpus(), trainer)
  backend.add_special_tokens(special)
  names = {'eos_token': '<|eot_id|>' if bos else '<|im_end|>'}
  if bos:  # as Llama 3's file: plain encoding puts a beginning in front, chats must not get two
    backend.post_processor = processors.TemplateProcessing(
      single=f'{bos} $A', special_tokens=[(bos, backend.token_to_id(bos))]
    )
    names['bos_token'] = bos
  backend.save(str(folder / 'tokenizer.json'))
  write_config(folder, **{'tokenizer_class': 'PreTrainedTokenizerFast', 'bos_token': None} | names)


def unigram_folder(folder):
  """A Unigram as T5 and others have it, with a space in front of every text."""
  backend = tokenizers.Tokenizer(models.Unigram())
  backend.pre_tokenizer = pre_tokenizers.Metaspace()
  backend.decoder = decoders.Metaspace()
  backend.normalizer = NFKC()
  trainer = trainers.UnigramTrainer(
    vocab_size=600, unk_token='<unk>', special_tokens=['<unk>', *CHATML], show_progress=False
  )
  backend.train_from_iterator(corpus(), trainer)
  backend.save(str(folder / 'tokenizer.json'))
  write_config(folder, tokenizer_class='PreTrainedTokenizerFast', eos_token='<|im_end|>')


KINDS = {
  'gemma': (gemma_folder, 'gemma3'),
  'converted gemma': (converted_gemma_folder, 'gemma2'),
  'llama': (partial(bpe_folder, cut=cut('{1,3}'), special=LLAMA, bos=LLAMA[0]), 'llama32'),
  'qwen': (partial(bpe_folder, cut=cut(''), special=CHATML, normalizer=NFC()), 'qwen3'),
  'smollm2': (partial(bpe_folder, cut=None, special=CHATML), 'smollm2'),
  'unigram': (unigram_folder, 'qwen25'),
}


@pytest.fixture(scope='module', params=KINDS)
def pair(request, tmp_path_factory):
  """(our tokenizer, theirs) of one folder."""
  make, template = KINDS[request.param]
  folder = tmp_path_factory.mktemp('tokenizer')
  make(folder)
  (folder / 'chat_template.jinja').write_text((TEMPLATES / f'{template}.jinja').read_text())
  return read_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)


def as_messages(conversation):
  return [{'role': role, 'content': text} for role, text in conversation]


def their_ids(tokenizer, text):
  return tokenizer.encode(text, add_special_tokens=False)


def plain(theirs, ids):
  """Ids without those that only some of Gemma's folders mark as special."""
  return [i for i in ids if theirs.convert_ids_to_tokens(i) not in (*GEMMA, '<mask>')]


def test_1000_strings(pair):
  ours, theirs = pair
  assert len(STRINGS) == NUM_STRINGS
  assert ours.vocab_size == len(theirs)
  different = [text for text in STRINGS if ours.encode(text) != their_ids(theirs, text)]
  assert not different, f'{len(different)}, the first: {different[0]!r}'
  for text in STRINGS:
    ids = plain(theirs, ours.encode(text))
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True), repr(text)


@pytest.fixture
def frozen_clock(monkeypatch):
  """Tells their templates the date that ours are told."""

  class Clock(datetime.datetime):
    @classmethod
    def now(cls):
      return cls(2024, 7, 26)

  monkeypatch.setattr(chat_template_utils, 'datetime', Clock)


@pytest.mark.parametrize('name', TEMPLATE_NAMES)
@pytest.mark.usefixtures('frozen_clock')
def test_every_template(pair, name):
  """All templates with all vocabularies: names of tokens that one lacks come out alike too."""
  ours, theirs = pair
  source = (TEMPLATES / f'{name}.jinja').read_text()
  if name == 'llama3' and theirs.bos_token is None:
    pytest.skip('this template is an error without a beginning-of-sequence token')
  template = ChatTemplate(source, ours.template.special_tokens)
  for conversation in CONVERSATIONS:
    for header in (False, True):
      messages = as_messages(conversation)
      text = theirs.apply_chat_template(
        messages, chat_template=source, add_generation_prompt=header, tokenize=False
      )
      assert template.render(messages, header) == text


@pytest.mark.usefixtures('frozen_clock')
def test_chats(pair):
  """The ids of a prompt, and those of two turns where the template keeps the first as it was."""
  ours, theirs = pair
  for text in STRINGS[:: NUM_STRINGS // 200]:
    prompt = as_messages([('user', text)])
    kwargs = {'add_generation_prompt': True, 'tokenize': False}
    rendered = theirs.apply_chat_template(prompt, **kwargs)
    ids = theirs.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
    assert ours.prompt_ids(text) == ids == their_ids(theirs, rendered)
    if '{{ bos_token' in ours.template.source or '{{- bos_token' in ours.template.source:
      assert ids.count(theirs.bos_token_id) == 1 + text.count(theirs.bos_token)
    whole = theirs.apply_chat_template(
      as_messages([('user', 'Q'), ('assistant', 'A'), ('user', text)]), **kwargs
    )
    end = theirs.convert_ids_to_tokens(ours.end_of_turn_ids[0])
    turns = whole.split('A' + end, 1)
    assert len(turns) == 2
    assert ours.followup_ids(text) == their_ids(theirs, turns[1])


@pytest.mark.usefixtures('frozen_clock')
def test_written_files(pair, tmp_path):
  """What we write for a tokenizer, `transformers` reads as the same, and so do we."""
  ours, theirs = pair
  for name, contents in tokenizer_files(ours).items():
    (tmp_path / name).write_bytes(contents)
  again, other = read_tokenizer(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
  assert again.end_of_turn_ids == ours.end_of_turn_ids
  assert again.template.special_tokens == ours.template.special_tokens
  assert len(other) == again.vocab_size
  messages = as_messages([('user', 'Q'), ('assistant', 'A'), ('user', 'R')])
  rendered = other.apply_chat_template(messages, tokenize=False)
  assert again.render(messages, False) == ours.render(messages, False) == rendered
  for text in STRINGS[::3]:
    ids = ours.encode(text)
    assert again.encode(text) == their_ids(other, text) == ids
    assert again.decode(ids) == ours.decode(ids)
    ids = plain(theirs, ids)
    assert other.decode(ids, skip_special_tokens=True) == ours.decode(ids)


def test_the_converted_model_is_the_model(tmp_path):
  """SentencePiece itself, and the BPE that `transformers` makes of its model."""
  (tmp_path / 'a').mkdir()
  (tmp_path / 'b').mkdir()
  gemma_folder(tmp_path / 'a')
  converted_gemma_folder(tmp_path / 'b')
  (tmp_path / 'b' / 'chat_template.jinja').write_text((TEMPLATES / 'gemma3.jinja').read_text())
  first, second = read_tokenizer(tmp_path / 'a'), read_tokenizer(tmp_path / 'b')
  assert [first.encode(t) for t in STRINGS] == [second.encode(t) for t in STRINGS]
  assert first.prompt_ids(' Q ') == second.prompt_ids(' Q ')
  assert first.end_of_turn_ids == second.end_of_turn_ids


@pytest.mark.parametrize('text', ['▁', 'a ▁▁ b', ' ▁▁'])
def test_a_block_that_is_no_space(tmp_path, text):
  """SentencePiece writes a space as U+2581 and takes one in the text for a space.

  `transformers` looks for its pieces of two and more in the text first, so that one beside a space
  can come out otherwise there. Ours are SentencePiece's own ids.
  """
  gemma_folder(tmp_path)
  model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / 'tokenizer.model'))
  tokenizer = read_tokenizer(tmp_path)
  assert tokenizer.encode(text) == model.encode(text) == model.encode(text.replace('▁', ' '))


def test_smollm2(smollm2_gguf):
  """The real vocabulary; `transformers` 5 drops the rule for digits, so it is given back."""
  ours = read_gguf_tokenizer(smollm2_gguf)
  theirs = transformers.AutoTokenizer.from_pretrained(
    smollm2_gguf.parent, gguf_file=smollm2_gguf.name
  )
  theirs.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Digits(individual_digits=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
  )
  test_1000_strings((ours, theirs))
  for conversation in CONVERSATIONS:
    messages = as_messages(conversation)
    rendered = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert ours.render(messages, add_generation_prompt=True) == rendered
