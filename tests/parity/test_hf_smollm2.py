"""SmolLM2-135M-Instruct out to a Hugging Face folder: `transformers` finds it unchanged."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.core.config import default_config
from score_jax.core.logits import project
from score_jax.export import export
from score_jax.formats import gguf, hf_folder, hf_tokenizer
from score_jax.model.attention import causal_mask
from score_jax.model.decoder import Decoder

torch = pytest.importorskip('torch', reason='needs the extra [parity]')
transformers = pytest.importorskip('transformers', reason='needs the extra [parity]')

# Their warnings are not ours to mend.
pytestmark = [
  pytest.mark.filterwarnings('default'),
  pytest.mark.slow,
  pytest.mark.timeout(1800),
]
NUM_SOLUTIONS, MAX_TOKENS = 100, 192


@pytest.fixture(scope='module')
def folder(smollm2_gguf, tmp_path_factory):
  config = default_config()
  config.model.checkpoint = str(smollm2_gguf)
  out = tmp_path_factory.mktemp('smollm2') / 'out'
  export(config, out)
  return out


def test_reloaded_unchanged(folder, smollm2_gguf):
  config = gguf.read_config(smollm2_gguf)
  assert hf_folder.read_config(folder) == config
  want = dict(gguf.iter_params(smollm2_gguf, config))
  for path, array in hf_folder.iter_params(folder, config):
    np.testing.assert_array_equal(array, want[path])


def test_tokenizer(folder, smollm2_gguf):
  ours = gguf.read_tokenizer(smollm2_gguf)
  again = hf_tokenizer.read_tokenizer(folder)
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  for text in (
    'Find $\\frac{1}{2}$ of 1234.',
    'naïve  7 <|im_end|>\n\tx',
    'def f(x):\n    return 2',
  ):
    ids = ours.encode(text)
    assert again.encode(text) == ids == theirs.encode(text, add_special_tokens=False)
  assert again.prompt_ids('Hi') == ours.prompt_ids('Hi')
  chat = [{'role': 'user', 'content': 'Hi'}]
  kwargs = {'add_generation_prompt': True, 'tokenize': False}
  assert theirs.apply_chat_template(chat, **kwargs) == ours.render(chat, add_generation_prompt=True)
  assert again.end_of_turn_ids == ours.end_of_turn_ids


def test_perplexity_of_math_solutions(folder, smollm2_gguf, data_dir):
  """100 solutions, 192 tokens of each at most: equal to 4 digits."""
  tokenizer = gguf.read_tokenizer(smollm2_gguf)
  lines = (data_dir / 'math' / 'test.jsonl').read_text().splitlines()[:NUM_SOLUTIONS]
  rows = [tokenizer.encode(json.loads(line)['solution'])[:MAX_TOKENS] for line in lines]
  config = gguf.read_config(smollm2_gguf)
  params = jax.tree.map(jnp.asarray, hf_folder.read_params(folder, config))
  positions = np.arange(MAX_TOKENS)[None]

  @jax.jit
  def nll(params, tokens, is_token):
    mask = causal_mask(positions, positions, is_token)
    hidden, head, _ = Decoder(config).apply({'params': params}, tokens, positions, mask)
    logp = jax.nn.log_softmax(project(hidden[:, :-1], head))
    logp = jnp.take_along_axis(logp, tokens[:, 1:, None], axis=-1)[..., 0]
    return -jnp.sum(jnp.where(is_token[:, 1:], logp, 0.0))

  torch.set_num_threads(1)  # its threads wait by spinning: on a busy machine, two are far slower
  model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
  ours = theirs = 0.0
  for ids in rows:
    tokens, is_token = np.zeros((1, MAX_TOKENS), np.int32), positions < len(ids)
    tokens[0, : len(ids)] = ids
    ours += float(nll(params, tokens, is_token))
    with torch.no_grad():
      logits = model(torch.tensor([ids])).logits[0, :-1]
    theirs += float(
      torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction='sum')
    )
  count = sum(len(ids) - 1 for ids in rows)
  ours, theirs = np.exp(ours / count), np.exp(theirs / count)
  print(f'perplexity over {count} tokens: {ours:.6f} and {theirs:.6f}')
  assert f'{ours:.4g}' == f'{theirs:.4g}'
  np.testing.assert_allclose(ours, theirs, rtol=2e-5)
