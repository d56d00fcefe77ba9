"""Each family, as `transformers` writes, runs and reads it: small random models of every kind.

Weights are drawn so wide that every factor matters: norms, biases, caps that bind, windows of 8
tokens in rows of 40, and positions beyond the context that scaled rotary embeddings were made for.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from small_models import compiled_decoder

from score_jax.formats import hf_export, hf_folder
from score_jax.model.decoder import Decoder
from score_jax.rollout.keys import episode_keys
from score_jax.rollout.layout import RolloutSpec
from score_jax.rollout.multi_turn import rollout

torch = pytest.importorskip('torch', reason='needs the extra [parity]')
transformers = pytest.importorskip('transformers', reason='needs the extra [parity]')

# Their warnings are not ours to mend.
pytestmark = pytest.mark.filterwarnings('default')

V, T, NEW_TOKENS = 67, 40, 24
SIZES = dict(
  vocab_size=V,
  hidden_size=24,
  intermediate_size=40,
  num_hidden_layers=4,
  num_attention_heads=4,
  num_key_value_heads=2,
  max_position_embeddings=512,
  eos_token_id=V - 1,
  bos_token_id=V - 2,
  pad_token_id=0,
)
LLAMA3_ROPE = dict(
  rope_type='llama3',
  rope_theta=500.0,
  factor=8.0,
  low_freq_factor=1.0,
  high_freq_factor=4.0,
  original_max_position_embeddings=16,
)
GEMMA3_ROPE = dict(
  full_attention=dict(rope_type='linear', rope_theta=1000.0, factor=8.0),
  sliding_attention=dict(rope_type='default', rope_theta=100.0),
)
SLIDING, FULL = 'sliding_attention', 'full_attention'
# By name: the model_type, and what its config changes.
FAMILIES = {
  'smollm2': (
    'llama',
    dict(tie_word_embeddings=True, num_attention_heads=3, num_key_value_heads=1),
  ),
  'llama3': ('llama', dict(rope_parameters=LLAMA3_ROPE, head_dim=16, num_key_value_heads=1)),
  'qwen2_5': ('qwen2', dict(tie_word_embeddings=True)),
  'qwen2_5_window': (
    'qwen2',
    dict(use_sliding_window=True, sliding_window=8, max_window_layers=1, num_key_value_heads=4),
  ),
  'qwen3': ('qwen3', dict(head_dim=10)),
  'gemma2': (
    'gemma2',
    dict(
      head_dim=16,
      query_pre_attn_scalar=12,
      sliding_window=8,
      attn_logit_softcapping=2.0,
      final_logit_softcapping=3.0,
    ),
  ),
  'gemma3': (
    'gemma3_text',
    dict(
      head_dim=16,
      query_pre_attn_scalar=12,
      sliding_window=8,
      layer_types=[SLIDING, SLIDING, FULL, SLIDING],
      rope_parameters=GEMMA3_ROPE,
    ),
  ),
}
# A row without padding, and two with holes on the left.
ROW_LENGTHS = np.array([T, T - 5, 9])


def draw_weights(model, seed=0):
  """Every parameter anew: matrices wide, vectors around what they are at the start."""
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, p in model.named_parameters():
      noise = torch.randn(p.shape, generator=generator)
      if p.ndim == 1:
        p.add_(0.3 * noise)
      else:
        p.copy_(noise * (1.0 if 'embed' in name else 1.0 / p.shape[1] ** 0.5))
  return model.eval()


def their_model(model_type, changes):
  config = transformers.AutoConfig.for_model(model_type, **SIZES | changes)
  torch.set_num_threads(1)  # its threads wait by spinning: on a busy machine, two are far slower
  model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation='eager')
  model.generation_config.eos_token_id = V - 1
  return draw_weights(model)


@dataclasses.dataclass(frozen=True)
class Pair:
  """The same model twice: `theirs` wrote `folder`, `config` and `params` were read from it."""

  theirs: object
  folder: object
  config: object
  params: object


@pytest.fixture(scope='module', params=FAMILIES)
def pair(request, tmp_path_factory):
  folder = tmp_path_factory.mktemp(request.param)
  theirs = their_model(*FAMILIES[request.param])
  theirs.save_pretrained(folder, max_shard_size='20KB' if request.param == 'gemma2' else '5GB')
  config = hf_folder.read_config(folder)
  return Pair(theirs, folder, config, hf_folder.read_params(folder, config))


def rows_of_tokens():
  """Tokens, and which of them are no padding."""
  tokens = np.random.default_rng(0).integers(1, V - 2, (len(ROW_LENGTHS), T), dtype=np.int32)
  return tokens, np.arange(T)[None] >= T - ROW_LENGTHS[:, None]


def their_logits(model, shift=0):
  tokens, is_token = rows_of_tokens()
  positions = np.maximum(np.cumsum(is_token, axis=1) - 1, 0) + shift
  with torch.no_grad():
    out = model(
      torch.tensor(tokens).long(),
      attention_mask=torch.tensor(is_token).long(),
      position_ids=torch.tensor(positions).long(),
    )
  return out.logits.float().numpy()[is_token]


def our_logits(config, params, shift=0):
  tokens, is_token = rows_of_tokens()
  positions = np.maximum(np.cumsum(is_token, axis=1) - 1, 0).astype(np.int32) + shift

  _, logits = compiled_decoder(config)(params, tokens, positions, is_token)
  return np.asarray(logits)[is_token]


def test_logits(pair):
  """Left padding, both sides of a window, and positions past the context of scaled RoPE."""
  theirs, ours = their_logits(pair.theirs), our_logits(pair.config, pair.params)
  print(f'largest difference {np.abs(ours - theirs).max():.1e}, largest logit {theirs.max():.1f}')
  assert theirs.std() > 0.5
  np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_long_positions(pair):
  theirs, ours = their_logits(pair.theirs, 300), our_logits(pair.config, pair.params, 300)
  print(f'largest difference {np.abs(ours - theirs).max():.1e}')
  np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_greedy_continuations(pair):
  """Ours from one cache with holes, theirs from `generate` over a left-padded batch."""
  tokens, is_token = rows_of_tokens()
  with torch.no_grad():
    theirs = pair.theirs.generate(
      torch.tensor(tokens).long(),
      attention_mask=torch.tensor(is_token).long(),
      do_sample=False,
      max_new_tokens=NEW_TOKENS,
    )[:, T:].tolist()
  spec = RolloutSpec(
    prompt_tokens=T, turn_tokens=(NEW_TOKENS,), followup_ids=(), end_of_turn_ids=(V - 1,)
  )
  rows = np.arange(len(tokens))
  keys = episode_keys(0, 0, rows, np.zeros_like(rows))
  decoder = Decoder(pair.config)
  episode = rollout(decoder, spec, pair.params, tokens, is_token, keys, temperature=0.0)
  tokens, turn = np.asarray(episode.tokens), np.asarray(episode.turn)
  for b, expected in enumerate(theirs):
    ours = tokens[b][turn[b] == 1].tolist()
    assert ours == expected[: len(ours)]
    assert len(ours) == NEW_TOKENS or ours[-1] == V - 1
  assert len({tuple(row) for row in theirs}) == len(theirs)


def read_back(folder, **kwargs):
  """What `transformers` makes of an exported folder."""
  model, info = transformers.AutoModelForCausalLM.from_pretrained(
    folder, attn_implementation='eager', output_loading_info=True, **kwargs
  )
  assert not any(info[key] for key in ('missing_keys', 'unexpected_keys', 'mismatched_keys'))
  return model.eval()


def test_export(pair, tmp_path):
  """Loads in `transformers` with the same logits; every tensor has the bytes that it came with."""
  hf_export.write_folder(
    tmp_path / 'out', pair.config, pair.params, generation={'eos_token_id': [V - 1]}
  )
  again = read_back(tmp_path / 'out', dtype='auto')
  assert again.dtype == torch.float32 and again.generation_config.eos_token_id == [V - 1]
  assert type(again) is type(pair.theirs)
  np.testing.assert_array_equal(their_logits(again), their_logits(pair.theirs))
  first, second = (hf_folder.read_tensors(f) for f in (pair.folder, tmp_path / 'out'))
  assert first.keys() == second.keys()
  for name, tensor in first.items():
    np.testing.assert_array_equal(second[name].read(), tensor.read())


def test_bfloat16(pair, tmp_path):
  """Ours and theirs differ about as much as each differs from float32, by 1 to 2% of a logit.

  Theirs rounds after every operation, ours only what is stored and multiplied. Written back as
  bfloat16, every bit is the same.
  """
  pair.theirs.to(torch.bfloat16).save_pretrained(tmp_path / 'in')
  rounded = their_logits(pair.theirs)
  params = hf_folder.read_params(tmp_path / 'in', pair.config)
  hf_export.write_folder(tmp_path / 'out', pair.config, params, jnp.bfloat16)
  exact = their_logits(pair.theirs.float())  # of the rounded weights, for the tests after this
  ours = our_logits(dataclasses.replace(pair.config, dtype='bfloat16'), params)
  cost, gap = np.abs(rounded - exact).mean(), np.abs(ours - rounded).mean()
  print(f'mean logit {np.abs(exact).mean():.2f}; bfloat16 costs {cost:.3f}, difference {gap:.3f}')
  assert gap < 1.6 * cost and gap < 0.02 * np.abs(exact).mean()
  assert np.abs(ours - exact).mean() < 1.3 * cost
  first, second = (hf_folder.read_tensors(tmp_path / f) for f in ('in', 'out'))
  for name, tensor in first.items():
    assert second[name].dtype == tensor.dtype == 'BF16'
    np.testing.assert_array_equal(second[name].read(), tensor.read())
  assert read_back(tmp_path / 'out', dtype='auto').dtype == torch.bfloat16


def test_text_model_of_one_that_sees_images(tmp_path):
  """Gemma 3 from 4B on: the folder holds a vision tower besides the text model."""
  vision = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
  vision |= dict(image_size=28, patch_size=14)
  config = transformers.Gemma3Config(
    text_config=SIZES | FAMILIES['gemma3'][1], vision_config=vision, mm_tokens_per_image=4
  )
  model = transformers.Gemma3ForConditionalGeneration(config)
  model.set_attn_implementation('eager')
  draw_weights(model).save_pretrained(tmp_path)
  config = hf_folder.read_config(tmp_path)
  ours = our_logits(config, hf_folder.read_params(tmp_path, config))
  np.testing.assert_allclose(ours, their_logits(model), atol=1e-4)
