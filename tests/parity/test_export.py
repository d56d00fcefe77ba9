"""An exported model in the hands of `transformers`: where it stops, and how it reads."""

import json
import random

import jax
import numpy as np
import pytest
import sentencepiece
from small_models import BASE_MODEL, byte_backend

from score_jax.core.config import default_config
from score_jax.export import export
from score_jax.formats import hf_export
from score_jax.formats.hf_tokenizer_files import tokenizer_files
from score_jax.model.decoder import abstract_params
from score_jax.setup.base_model import EMBEDDED
from score_jax.tokenizers.base import SentencePieceTokenizer

torch = pytest.importorskip('torch', reason='needs the extra [parity]')
transformers = pytest.importorskip('transformers', reason='needs the extra [parity]')

pytestmark = pytest.mark.filterwarnings('default')  # their warnings are not ours to mend

# By family: the token that ends a turn, and a template that writes it.
FAMILIES = {
  'chatml': '<|im_end|>',
  'gemma': '<end_of_turn>',
  'llama3': '<|eot_id|>',
}
END_OF_TEXT, END_OF_TURN = 256, 257


def write_base(folder, end, fields, generation):
  """A model that says the end of the turn after whatever it reads."""
  params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), abstract_params(BASE_MODEL)[0])
  embedding = params['embedder']['embedding']
  embedding[:] = 0.1
  embedding[END_OF_TURN] = 1.0  # the head is the embedding
  template = "{% for m in messages %}{{ m.content + 'END' }}{% endfor %}".replace('END', end)
  files = {
    'tokenizer.json': byte_backend(['<|endoftext|>', end]).to_str().encode(),
    'tokenizer_config.json': json.dumps({'eos_token': '<|endoftext|>'}).encode(),
    'chat_template.jinja': template.encode(),
  }
  hf_export.write_folder(folder, BASE_MODEL, params, np.float32, fields, generation, files)


@pytest.mark.parametrize('end', FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize(
  ('fields', 'generation'),
  [
    ({'eos_token_id': END_OF_TEXT}, {'eos_token_id': END_OF_TEXT, 'temperature': 0.5}),
    ({'eos_token_id': [END_OF_TEXT]}, {'eos_token_id': [END_OF_TEXT]}),
    ({}, {'temperature': 0.5}),
    ({'eos_token_id': END_OF_TEXT}, None),
  ],
  ids=['int', 'list', 'absent', 'no generation_config'],
)
def test_an_exported_model_stops(end, fields, generation, tmp_path):
  write_base(tmp_path / 'base', end, fields, generation)
  config = default_config()
  config.model.checkpoint = str(tmp_path / 'base')
  export(config, tmp_path / 'out')
  model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'out').eval()
  assert {END_OF_TEXT, END_OF_TURN} <= set(model.config.eos_token_id)
  prompt = torch.tensor([[65, 66, 67]])
  with torch.no_grad():
    ids = model.generate(prompt, attention_mask=prompt > 0, do_sample=False, max_new_tokens=20)
  assert ids[0, 3:].tolist() == [END_OF_TURN]
  assert model.generation_config.temperature == (generation or {}).get('temperature')


def test_the_shipped_policy_is_read_alike(tmp_path):
  """Without a chat format: the same ids and text as SentencePiece, special tokens in the text."""
  path = EMBEDDED / 'tokenizer.model'
  for name, contents in tokenizer_files(SentencePieceTokenizer(path)).items():
    (tmp_path / name).write_bytes(contents)
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  model = sentencepiece.SentencePieceProcessor(model_file=str(path))
  parts = [*'0123456789?=', *(f'+{d}' for d in range(10)), 'again', '</s>', '<unk>', '<pad>']
  parts += ['', '  ', '\n', '\t', '▁', '漢字', '🙂', 'e\u0301', '\x00', '12', '+ 4', '<0x41>']
  rng = random.Random(2)
  for _ in range(1000):
    text = rng.choice(['', ' ']).join(rng.choices(parts, k=rng.randint(0, 9)))
    ids = model.encode(text)
    assert theirs(text)['input_ids'] == ids, text
    assert theirs.decode(ids) == model.decode(ids), text
  assert (theirs.eos_token_id, theirs.pad_token_id) == (model.eos_id(), model.pad_id())
