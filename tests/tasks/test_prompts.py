"""What the model is shown, to the letter, as text and as token ids."""

import hashlib
import io

import pytest
import sentencepiece

from score_jax.formats.gguf_tokenizer import read_tokenizer
from score_jax.tasks import base, gsm8k, humaneval, mbpp, mbpp_r, programs
from score_jax.tasks import math as math_task
from score_jax.tokenizers.base import SentencePieceTokenizer

MATH_PROMPT = (
  'You are a math expert. When you respond, respond only with the Solution of the final Problem, '
  'thinking step by step. At the end of the Solution, when you give your final answer, write it in '
  'the form "Final Answer: The final answer is $answer$. I hope it is correct."\n'
  '\n'
  'Problem: What is $2+2$?'
)
MATH_INSTRUCTION = (
  'There might be an error in the solution above because of lack of understanding of the question. '
  'Please correct the error, if any, and rewrite the solution. Only output the final solution! At '
  'the end of the Solution, when you give your final answer, write it in the form "Final Answer: '
  'The final answer is $answer$. I hope it is correct."'
)
CODE_INSTRUCTION = (
  '# There might be an error in the code above because of lack of understanding of the question. '
  'Please correct the error, if any, and rewrite the solution. Only output the final correct '
  'Python program!'
)
MBPP_PROMPT = """\
You are an expert Python programmer, and here is your task: \
Write two. Your code should pass these tests:

assert two() == 2
assert two() != 3 

[BEGIN]
def two():
  return 2 
[DONE]

You are an expert Python programmer, and here is your task: \
Write three. Your code should pass these tests:

assert three() == 3

[BEGIN]
def three():
  return 3
[DONE]

You are an expert Python programmer, and here is your task: \
Write four. Your code should pass these tests:

assert four() == 4

[BEGIN]
def four():
  return 4
[DONE]

You are an expert Python programmer, and here is your task: \
Write a function to add. Your code should pass these tests:

assert add(1, 2) == 3
assert add(0, 0) == 0

[BEGIN]
"""
TWO = 'def two():\r\n  return 2 '


def mbpp_row(task_id, text, tests, code='', setup=''):
  return {
    'id': task_id - 1,
    'task_id': task_id,
    'text': text,
    'test_list': tests,
    'test_setup_code': setup,
    'code': code,
  }


SHOTS = [
  mbpp_row(1, 'Write one.', ['assert one() == 1'], 'def one():\n  return 1'),
  mbpp_row(2, 'Write two.', ['assert two() == 2', 'assert two() != 3 '], TWO),
  mbpp_row(3, 'Write three.', ['assert three() == 3'], 'def three():\n  return 3'),
  mbpp_row(4, 'Write four.', ['assert four() == 4'], 'def four():\n  return 4'),
  mbpp_row(5, 'Write five.', ['assert five() == 5'], 'def five():\n  return 5'),
]
TWO_PLUS_TWO = base.Problem(0, 'What is $2+2$?', '4')
ADD = mbpp.mbpp_problem(
  mbpp_row(11, 'Write a function to add.', ['assert add(1, 2) == 3', 'assert add(0, 0) == 0'])
)


class NoChecker:
  """Stands where a checker stands, in tests that grade nothing."""

  def close(self):
    pass


def test_math_and_gsm8k():
  assert math_task.math_prompt(TWO_PLUS_TWO) == MATH_PROMPT
  assert math_task.MATH_INSTRUCTION == MATH_INSTRUCTION
  task = math_task.math_task('gsm8k', [TWO_PLUS_TWO], [])
  assert (task.prompt(TWO_PLUS_TWO), task.instruction) == (MATH_PROMPT, MATH_INSTRUCTION)
  assert gsm8k.final_number('He has 3.\n#### 1,200 ') == '1200'


def test_mbpp_is_three_shots_and_the_problem():
  prefix = mbpp.few_shot_prefix(SHOTS)
  assert mbpp.mbpp_prompt(prefix, ADD) == MBPP_PROMPT
  task = mbpp.mbpp_task('mbpp', [ADD], [], prefix, NoChecker())
  assert (task.prompt(ADD), task.instruction) == (MBPP_PROMPT, CODE_INSTRUCTION)
  assert programs.CODE_INSTRUCTION == CODE_INSTRUCTION
  with pytest.raises(ValueError, match=r'the shots of the prompt, task_id \[3, 4\], are missing'):
    mbpp.few_shot_prefix(SHOTS[:2])


def test_mbpp_tests_have_their_setup_and_one_kind_of_line_end():
  row = mbpp_row(7, 'Walk.', ['assert f(root)'], setup='root = Node(1) \r\nroot.left = Node(2)')
  assert mbpp.mbpp_problem(row) == base.Problem(
    id=6,
    question='Walk. Your code should pass these tests:\n\nassert f(root)',
    answer='root = Node(1) \nroot.left = Node(2)\nassert f(root)',
  )
  assert mbpp.mbpp_statement(ADD) == 'Write a function to add.'


def test_a_program_to_repair_ends_as_the_shots_do():
  wrong = base.Problem(0, 'Add.', '', attempt='def add(a, b):\n  return a\n\n')
  assert mbpp_r.given_answer(wrong) == 'def add(a, b):\n  return a\n[DONE]'


HEADER = """\
from typing import List

def f(x: List[int]) -> int:
    ''' Sum. >>> f([1])
    1
    '''
"""


def test_humaneval_is_the_published_prompt_without_its_tests():
  problem = base.Problem(0, HEADER, 'def check(candidate):\n  assert candidate([2]) == 2\ncheck(f)')
  assert humaneval.humaneval_prompt(problem) == HEADER
  assert humaneval.entry_point(problem) == 'f'
  assert humaneval.humaneval_statement(problem) == ' Sum. '


# With the real shots: hashes, since the data is not part of the repository.


def digest(value):
  return hashlib.sha256((value if isinstance(value, str) else repr(value)).encode()).hexdigest()[
    :16
  ]


@pytest.fixture(scope='module')
def real(data_dir, tmp_path_factory):
  cache = tmp_path_factory.mktemp('cache')
  return {
    'mbpp': mbpp.load_mbpp(data_dir, NoChecker(), cache=cache),
    'humaneval': humaneval.load_humaneval(data_dir, NoChecker(), cache=cache),
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


# As token ids: with the chat template of a real model, and with no chat format at all.

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
  assert tokenizer.followup_ids(CODE_INSTRUCTION) == [
    *[198, 1, 4093, 198, 19, 1385, 1124, 325, 354, 4514, 281, 260, 2909, 2120, 975, 282, 3096],
    *[282, 1725, 282, 260, 1962, 30, 8765, 2887, 260, 4514, 28, 585, 750, 28, 284, 34013, 260],
    *[3564, 30, 6906, 3124, 260, 3403, 2887, 5905, 1578, 17, 2, 198, 1, 520, 9531, 198],
  ]
  assert tokenizer.followup_ids(MATH_INSTRUCTION)[-10:] == [357, 314, 2887, 1270, 2, 198, *end[-4:]]
  ids = tokenizer.prompt_ids(real['mbpp'].prompt(real['mbpp'].test[0]))
  assert len(ids) == 746 and digest(ids) == 'eed7827162d1c07e'
  ids = tokenizer.prompt_ids(real['humaneval'].prompt(real['humaneval'].test[0]))
  assert len(ids) == 155 and digest(ids) == '92c326efad241a34'


def test_a_model_without_a_chat_format_sees_the_plain_text(tmp_path):
  texts = [MATH_PROMPT, MATH_INSTRUCTION, MBPP_PROMPT, CODE_INSTRUCTION, HEADER]
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
