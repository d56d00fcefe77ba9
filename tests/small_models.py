"""Small models that several test files use, their parameters, tokenizers and files."""

import dataclasses
import functools
import json

from score_jax.model.decoder_config import DecoderConfig
from score_jax.model.presets import PRESETS

CHATML = (
  "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
  "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


# What Gemma 2 and 3 do differently, all at once.
GEMMA_CHOICES = dict(
  activation='gelu_tanh',
  qk_norm=True,
  post_norms=True,
  norm_plus_one=True,
  scale_embedding=True,
  query_pre_attn_scalar=5.0,
  attn_softcap=0.5,
  logit_softcap=3.0,
  window=3,
  window_pattern=(True, True, False),
  window_rope_base=7.0,
  rope_factor=2.0,
)


def tiny_decoder(**changes):
  """The config of a decoder of a few thousand parameters, no two of whose sizes are the same."""
  sizes = dict(vocab_size=11, num_layers=3, embed_dim=12, mlp_dim=16, num_heads=4, num_kv_heads=2)
  return DecoderConfig(**sizes | dict(head_dim=8, rope_base=100.0) | changes)


def random_params(config, seed=0, dtype='float32'):
  """NumPy parameters of a decoder, so wide that no factor can be left out unseen."""
  import jax
  import numpy as np

  from score_jax.model.decoder import abstract_params

  rng = np.random.default_rng(seed)

  def draw(path, x):
    centre = float(path[-1].key == 'scale' and not config.norm_plus_one)
    return (centre + rng.normal(0.0, 0.4, x.shape)).astype(dtype)

  return jax.tree_util.tree_map_with_path(draw, abstract_params(config)[0])


@functools.cache
def compiled_decoder(config):
  """(params, tokens_BT, positions_BT, is_token_BT) -> (hidden_BTD, logits_BTV), compiled."""
  import jax

  from score_jax.core.logits import project
  from score_jax.model.attention import causal_mask
  from score_jax.model.decoder import Decoder

  @jax.jit
  def run(params, tokens_BT, positions_BT, is_token_BT):
    mask_BTT = causal_mask(positions_BT, positions_BT, is_token_BT)
    hidden, head, _ = Decoder(config).apply({'params': params}, tokens_BT, positions_BT, mask_BTT)
    return hidden, project(hidden, head)

  return run


def row_logits(config, params, tokens):
  """f32[T, V] logits of one row of tokens without holes."""
  import numpy as np

  tokens_BT = np.asarray(tokens, np.int32)[None]
  positions_BT = np.arange(tokens_BT.size, dtype=np.int32)[None]
  is_token_BT = np.ones(tokens_BT.shape, bool)
  return np.asarray(compiled_decoder(config)(params, tokens_BT, positions_BT, is_token_BT)[1])[0]


def counting_model(vocab_size=12):
  """A decoder, and NumPy parameters with which token v is followed by v + 1.

  One-hot embeddings, layers that add 0.
  """
  import jax
  import numpy as np

  from score_jax.model.decoder import Decoder, abstract_params

  sizes = dict(num_layers=1, embed_dim=16, mlp_dim=8, num_heads=2, num_kv_heads=1, head_dim=4)
  config = tiny_decoder(vocab_size=vocab_size, tie_embeddings=False, **sizes)
  params = jax.tree.map(lambda x: np.ones(x.shape, np.float32), abstract_params(config)[0])
  for part, name in (('attn', 'o'), ('mlp', 'down')):
    params['layers'][part][name] = np.zeros_like(params['layers'][part][name])
  params['embedder']['embedding'] = np.eye(vocab_size, 16, dtype=np.float32)
  params['head']['kernel'] = 50 * np.roll(np.eye(16, vocab_size, dtype=np.float32), 1, axis=1)
  return Decoder(config), params


class Digits:
  """A tokenizer of digits for a counting model; 9 ends a turn."""

  vocab_size, pad_id, end_of_turn_ids = 12, 0, (9,)

  def encode(self, text):
    """The digits as ids."""
    return [int(digit) for digit in text]

  prompt_ids = followup_ids = encode

  def decode(self, ids):
    """The ids as digits, ends of turn left out."""
    return ''.join(str(i) for i in ids if i not in self.end_of_turn_ids)


def rewrite_header(path, edit):
  """Rewrites a safetensors file's header, its tensors' bytes as they are."""
  data = path.read_bytes()
  size = int.from_bytes(data[:8], 'little')
  header = json.loads(data[8 : 8 + size])
  edit(header)
  text = json.dumps(header).encode()
  path.write_bytes(len(text).to_bytes(8, 'little') + text + data[8 + size :])


def byte_backend(special_tokens):
  """A tokenizer of single bytes, 0 to 255, and special tokens: what it does can be seen."""
  import tokenizers
  from tokenizers import decoders, models, pre_tokenizers

  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  backend = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = decoders.ByteLevel()
  backend.add_special_tokens(special_tokens)
  return backend


def byte_tokenizer_files():
  """The files of a chat tokenizer of single bytes, by name; 256 and 257 begin and end a turn."""
  return {
    'tokenizer.json': byte_backend(['<|im_start|>', '<|im_end|>']).to_str().encode(),
    'tokenizer_config.json': json.dumps({'eos_token': '<|im_end|>'}).encode(),
    'chat_template.jinja': CHATML.encode(),
  }


# A small Gemma 2 with a token for each byte, and two more.
BASE_MODEL = dataclasses.replace(
  PRESETS['gemma2_2b'],
  vocab_size=260,
  num_layers=3,
  embed_dim=8,
  mlp_dim=12,
  num_heads=2,
  num_kv_heads=1,
  head_dim=4,
  window=4,
)


def write_base_model(folder):
  """Writes `BASE_MODEL` with random parameters as a Hugging Face folder in bfloat16."""
  import jax.numpy as jnp

  from score_jax.formats import hf_export

  hf_export.write_folder(
    folder,
    BASE_MODEL,
    random_params(BASE_MODEL),
    jnp.bfloat16,
    {'bos_token_id': 256, 'max_position_embeddings': 99},
    {'eos_token_id': [257], 'temperature': 0.6},
    byte_tokenizer_files(),
  )


def write_gguf(path, metadata, tensors, architecture='llama', raw_types=None):
  """Writes a GGUF file; what is None in `metadata` or `tensors` is left out."""
  import gguf

  writer = gguf.GGUFWriter(path, architecture)
  for key, value in metadata.items():
    if isinstance(value, bool):
      writer.add_bool(key, value)
    elif isinstance(value, int):
      writer.add_uint32(key, value)
    elif isinstance(value, float):
      writer.add_float32(key, value)
    elif isinstance(value, str):
      writer.add_string(key, value)
    elif value is not None:
      writer.add_array(key, value)
  for name, value in tensors.items():
    if value is not None:
      writer.add_tensor(name, value, raw_dtype=(raw_types or {}).get(name))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def write_sentencepiece(folder, **kwargs):
  """Writes a small SentencePiece model with Gemma's special tokens."""
  import io

  import sentencepiece

  out = io.BytesIO()
  options = {
    'model_type': 'bpe',
    'vocab_size': 340,
    'hard_vocab_limit': False,
    'byte_fallback': True,
    'add_dummy_prefix': False,
    'remove_extra_whitespaces': False,
    'normalization_rule_name': 'identity',
    'user_defined_symbols': ['<start_of_turn>', '<end_of_turn>', '</s>', '\n\n'],
    'minloglevel': 2,
  }
  for i, name in enumerate(('pad', 'eos', 'bos', 'unk')):
    options |= {f'{name}_id': i, f'{name}_piece': f'<{name}>'}
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(['user model', 'the answer is 42', 'the other answer is 17'] * 3),
    model_writer=out,
    **options | kwargs,
  )
  (folder / 'tokenizer.model').write_bytes(out.getvalue())


def digit_task(questions, attempts=None, answer='78'):
  """A task for `counting_model`; the right answer is what it says after the instruction, '6'."""
  from score_jax.tasks import base

  attempts = attempts or [''] * len(questions)
  rows = [
    base.Problem(i, q, answer, attempt=a)
    for i, (q, a) in enumerate(zip(questions, attempts, strict=True))
  ]
  return base.Task(
    name='digits',
    train=[],
    test=rows,
    prompt=lambda problem: problem.question,
    instruction='6',
    grade=lambda problems, texts: [
      base.Verdict(float(p.answer == t), 'correct' if p.answer == t else 'wrong')
      for p, t in zip(problems, texts, strict=True)
    ],
    final=lambda text: text or None,
  )


def counting_sampler(params=None, spec=None, batch=2, temperature=0.0):
  """Samples two turns of `counting_model`, or of other parameters; 9 ends a turn."""
  import jax

  from score_jax.core.sharding import make_mesh
  from score_jax.rollout.layout import RolloutSpec
  from score_jax.rollout.sampler import Sampler

  decoder, counter = counting_model()
  spec = spec or RolloutSpec(
    prompt_tokens=3, turn_tokens=(4, 5), followup_ids=((6,),), end_of_turn_ids=(9,)
  )
  params = counter if params is None else params
  mesh = make_mesh((1, 1, 1), jax.devices()[:1])
  return Sampler(decoder, spec, params, Digits(), batch, temperature, 0, mesh)
