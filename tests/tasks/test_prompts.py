"""What the model is shown, as token ids: with the chat template of a real model, and with none.

The texts themselves are held to the letter where each task is tested; those of the real code tasks
by their hashes, since the data is not part of the repository.
"""

import hashlib
import io
import types

import pytest
import sentencepiece

from score_jax.formats.gguf_tokenizer import read_tokenizer
from score_jax.tasks import base, humaneval, mbpp, programs
from score_jax.tasks import math as math_task
from score_jax.tokenizers.base import SentencePieceTokenizer

MATH_PROMPT = math_task.math_prompt(base.Problem(0, 'What is $2+2$?', '4'))
MBPP_PROMPT = """\
You are an expert Python programmer, and here is your task: \
Write two. Your code should pass these tests:

assert two() == 2

[BEGIN]
"""
NO_CHECKER = types.SimpleNamespace(grade=None, close=None)  # where nothing is graded
HEADER = """\
def f(x: List[int]) -> int:
    ''' Sum. >>> f([1])
    1
    '''
"""


def digest(value):
  return hashlib.sha256((value if isinstance(value, str) else repr(value)).encode()).hexdigest()[
    :16
  ]


@pytest.fixture(scope='module')
def real(data_dir, data_cache):
  return {
    'mbpp': mbpp.load_mbpp(data_dir, NO_CHECKER, cache=data_cache),
    'humaneval': humaneval.load_humaneval(data_dir, NO_CHECKER, cache=data_cache),
  }


def test_the_real_code_prompts(real):
  prompts = {name: task.prompt(task.test[0]) for name, task in real.items()}
  assert len(prompts['mbpp']) == 1815 and digest(prompts['mbpp']) == 'bab5de4101c60efb'
  assert len(prompts['humaneval']) == 348 and digest(prompts['humaneval']) == '00b2e074e127a6a9'
  for name, task in real.items():
    for problem in (*task.train, *task.test):
      prompt = task.prompt(problem)
      assert '\r' not in prompt
      if name == 'mbpp':
        assert prompt.count('[BEGIN]\n') == 4 and prompt.count('\n[DONE]\n\n') == 3
      else:
        assert 'check(' not in prompt.replace('_check(', '') and 'METADATA' not in prompt


SYSTEM = (
  '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face'
  '<|im_end|>\n'
)


@pytest.mark.parametrize('prompt', [MATH_PROMPT, MBPP_PROMPT, HEADER])
def test_a_chat_model_sees_one_user_message(smollm2_gguf, prompt):
  tokenizer = read_tokenizer(smollm2_gguf)
  text = f'{SYSTEM}<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n'
  assert tokenizer.render([{'role': 'user', 'content': prompt}], True) == text
  assert tokenizer.prompt_ids(prompt) == tokenizer.encode(text)


def test_the_ids_of_a_chat_model(smollm2_gguf, real):
  tokenizer = read_tokenizer(smollm2_gguf)
  begin = [1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018]
  ids = tokenizer.prompt_ids(MATH_PROMPT)
  assert ids[:15] == begin
  end = [33348, 42, 1812, 314, 1885, 34, 27, 34, 20, 47, 2, 198, 1, 520, 9531, 198]
  assert ids[-16:] == end and len(ids) == 103
  assert tokenizer.followup_ids(programs.CODE_INSTRUCTION) == [
    *[198, 1, 4093, 198, 19, 1385, 1124, 325, 354, 4514, 281, 260, 2909, 2120, 975, 282, 3096],
    *[282, 1725, 282, 260, 1962, 30, 8765, 2887, 260, 4514, 28, 585, 750, 28, 284, 34013, 260],
    *[3564, 30, 6906, 3124, 260, 3403, 2887, 5905, 1578, 17, 2, 198, 1, 520, 9531, 198],
  ]
  assert tokenizer.followup_ids(math_task.MATH_INSTRUCTION)[-10:] == [
    357,
    314,
    2887,
    1270,
    2,
    198,
    *end[-4:],
  ]
  ids = tokenizer.prompt_ids(real['mbpp'].prompt(real['mbpp'].test[0]))
  assert len(ids) == 746 and digest(ids) == 'eed7827162d1c07e'
  ids = tokenizer.prompt_ids(real['humaneval'].prompt(real['humaneval'].test[0]))
  assert len(ids) == 155 and digest(ids) == '92c326efad241a34'


def test_a_model_without_a_chat_format_sees_the_plain_text(tmp_path):
  texts = [MATH_PROMPT, math_task.MATH_INSTRUCTION, MBPP_PROMPT, programs.CODE_INSTRUCTION, HEADER]
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(texts),
    model_writer=model,
    model_type='char',
    vocab_size=100,
    hard_vocab_limit=False,
    character_coverage=1.0,
    normalization_rule_name='identity',
    remove_extra_whitespaces=False,
    add_dummy_prefix=False,
    user_defined_symbols=['\n'],
    minloglevel=2,
  )
  path = tmp_path / 'tokenizer.model'
  path.write_bytes(model.getvalue())
  tokenizer = SentencePieceTokenizer(path)
  for text in texts:
    # One id a character, so none is added and none is lost.
    assert len(tokenizer.prompt_ids(text)) == len(tokenizer.followup_ids(text)) == len(text)
    assert tokenizer.decode(tokenizer.prompt_ids(text)) == text
