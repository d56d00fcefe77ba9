"""The comparison with a peer: what is counted, how the two processes talk, whose weights they get.

No peer is installed here: processes that only talk stand in for it.
"""

import dataclasses
import sys
from importlib import metadata

import numpy as np
import pytest
from makers import ROOT

from score_jax.model.presets import preset

END = 0
# Samples ids that grow; says so in a common file; prints what no reply is.
FAKE = """
import os, sys
import sides

name, seconds, diary = sys.argv[1:]

def rollout(prompts, samples, instruction, end):
  print('a word of a library')
  os.system('echo a word of a compiler')
  with open(diary, 'a') as file:
    file.write(name)
  row = list(range(1, 65))
  n = len(prompts) * samples
  ids = [[row] * n, [row[: -1 if len(prompts) == 3 else None]] * n]
  return {'tokens': ids, 'seconds': float(seconds), 'peak_bytes': 5 * 10**8}

def fail():
  raise ValueError('the peer is ill')

sides.serve({'rollout': rollout, 'fail': fail})
"""


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
  """The benchmarks' folder is where Python looks, as it is for a script of it."""
  monkeypatch.syspath_prepend(ROOT / 'benchmarks')
  monkeypatch.setenv('PYTHONPATH', str(ROOT / 'benchmarks'))


@pytest.fixture
def fakes(benchmarks, tmp_path):
  """Commands of two processes that answer, ours twice as fast, and the diary of both."""
  (tmp_path / 'fake.py').write_text(FAKE)
  command, diary = [sys.executable, str(tmp_path / 'fake.py')], tmp_path / 'diary'
  return [*command, 'A', '2.0', str(diary)], [*command, 'B', '4.0', str(diary)], diary


def test_table():
  import tunix_rollout as benchmark

  def result(side, batch, tokens_per_s, peak):
    return benchmark.Result(side, batch, tokens_per_s, peak, [])

  results = [
    result('score_jax', 16, (100.0, 150.0, 120.04), 1_500_000_000),
    result('tunix', 16, (60.0, 50.0, 40.0), 1_754_000_000),
    result('score_jax', 64, (30.0,), 2 * 10**9),
    result('tunix', 64, (40.0,), 10**9),
  ]
  assert benchmark.table(results).splitlines() == [
    '| side | batch | tokens/s, median (min-max) | peak memory, GB | ratio |',
    '|---|---|---|---|---|',
    '| score_jax | 16 | 120.0 (100.0-150.0) | 1.50 | 2.40 |',
    '| tunix | 16 | 50.0 (40.0-60.0) | 1.75 | 1.00 |',
    '| score_jax | 64 | 30.0 (30.0-30.0) | 2.00 | 0.75 |',
    '| tunix | 64 | 40.0 (40.0-40.0) | 1.00 | 1.00 |',
  ]


def test_agreement():
  import tunix_rollout as benchmark

  ours = np.arange(2 * 3 * 10).reshape(2, 3, 10)
  theirs = ours.copy()
  theirs[0, 1, 8] = -1  # row 1 parts after 8 tokens, row 2 after 13
  theirs[1, 2, 3:] = -1
  sentence = benchmark.agreement(ours.tolist(), theirs.tolist())
  assert sentence == (
    'batch 3: 3 of 3 rows agree in the first 8 tokens, 1 in all 20; the median row in the first 13.'
  )
  theirs[0, 1, 7] = -1
  assert '2 of 3 rows agree' in benchmark.agreement(ours.tolist(), theirs.tolist())


def test_sides_take_turns(fakes):
  import sides
  import tunix_rollout as benchmark

  *commands, diary = fakes
  with sides.Side('score_jax', commands[0]) as a, sides.Side('tunix', commands[1]) as b:
    work = {'prompts': [[1, 2]] * 2, 'samples': 2, 'instruction': [END], 'end': END}
    results = benchmark.measure([a, b], work, repeats=2)
    assert diary.read_text() == 'ABABAB'  # the first of each compiles and is not counted
    # 4 rows x 2 turns x 64 tokens in 2 s, and in 4 s.
    assert [r.tokens_per_s for r in results] == [(256.0, 256.0), (128.0, 128.0)]
    assert [r.peak_bytes for r in results] == [5 * 10**8] * 2
    short = dict(work, prompts=[[1, 2]] * 3)
    with pytest.raises(RuntimeError, match=r'score_jax: \[63, 64\] tokens in a turn, 64 were'):
      benchmark.measure([a, b], short, repeats=0)
  assert a.process.returncode == b.process.returncode == 0


def test_a_side_that_fails_is_named(fakes, capfd):
  import sides

  with sides.Side('tunix', fakes[1]) as side:
    for _ in range(2):  # nor does a dead process hang the next request
      with pytest.raises(RuntimeError, match="tunix ended with status 1 at 'fail'"):
        side.ask('fail')
  assert 'the peer is ill' in capfd.readouterr().err


def test_peer_environment(monkeypatch, tmp_path):
  """What is installed: jax and flax as they are here; the peer itself without its needs; once."""
  import tunix_rollout as benchmark

  commands = []
  monkeypatch.setattr(
    benchmark.subprocess,
    'run',
    lambda command, check: commands.append([str(word) for word in command]),
  )
  folder = tmp_path / 'peer'
  folder.mkdir()
  assert benchmark.make_peer_env(folder) == folder / 'bin' / 'python'
  make, needs, peer = commands
  assert make[1:] == ['-m', 'venv', str(folder)]
  assert needs[0] == peer[0] == str(folder / 'bin' / 'python')
  pins = {word.partition('==')[0].partition('[')[0]: word.partition('==')[2] for word in needs}
  assert {name: pins[name] for name in ('jax', 'flax')} == {
    name: metadata.version(name) for name in ('jax', 'flax')
  }
  assert peer[-2:] == ['--no-deps', 'google-tunix==0.1.7']
  benchmark.make_peer_env(folder)
  assert len(commands) == 3


# What Tunix 0.1.7 calls the parameters of a layer, and their shapes, as its model files say: of its
# Llama (`models/llama3/model.py`), and the biases that its Qwen 2 (`models/qwen2/model.py`) adds.
D, F, N, M, H, V, L = 64, 128, 4, 2, 16, 512, 2
TUNIX_LAYER = {
  'input_layernorm.w': (D,),
  'attn.q_proj.w': (D, N, H),
  'attn.k_proj.w': (D, M, H),
  'attn.v_proj.w': (D, M, H),
  'attn.o_proj.w': (N, H, D),
  'mlp.gate_proj.kernel': (D, F),
  'mlp.up_proj.kernel': (D, F),
  'mlp.down_proj.kernel': (F, D),
  'post_attention_layernorm.w': (D,),
}
TUNIX_BIASES = {'attn.q_bias': (N * H,), 'attn.k_bias': (M * H,), 'attn.v_bias': (M * H,)}


def tiny(preset_name, dtype):
  import tunix_rollout as benchmark

  config = benchmark.model_config(preset_name, is_tiny=True, dtype=dtype)
  return dataclasses.asdict(config)


@pytest.mark.parametrize(
  ('preset_name', 'dtype', 'layer'),
  [
    ('smollm2_135m', 'float32', TUNIX_LAYER),
    ('qwen2_5_1_5b', 'bfloat16', TUNIX_LAYER | TUNIX_BIASES),
  ],
)
def test_weights_reach_the_peer(preset_name, dtype, layer, tmp_path):
  import our_side
  import sides
  import tunix_side

  path = str(tmp_path / 'weights.npz')
  ours = our_side.OurSide()
  num_bytes = ours.draw(path, tiny(preset_name, dtype), END)['bytes']
  arrays = dict(sides.read_arrays(path, dtype))
  assert {str(array.dtype) for array in arrays.values()} == {dtype}
  theirs = dict(pair for name in arrays for pair in tunix_side.tunix_arrays(name, arrays[name]))
  shapes = {f'layers.{i}.{name}': shape for i in range(L) for name, shape in layer.items()}
  shapes |= {'embedder.input_embedding': (V, D), 'final_norm.w': (D,)}
  assert {name: array.shape for name, array in theirs.items()} == shapes
  assert sum(array.nbytes for array in theirs.values()) == num_bytes
  # Values: by layer and by head; only the end of turn's embedding is zero.
  np.testing.assert_array_equal(theirs['layers.1.attn.k_proj.w'], arrays['layers/attn/k'][1])
  np.testing.assert_array_equal(theirs['layers.0.mlp.up_proj.kernel'], arrays['layers/mlp/up'][0])
  for name, array in theirs.items():
    assert np.any(array != 0) and array.std() > 0, name
  if 'attn.q_bias' in layer:
    flat = theirs['layers.1.attn.q_bias']
    np.testing.assert_array_equal(flat[H : 2 * H], arrays['layers/attn/q_bias'][1, 1])
  embedding = np.asarray(arrays['embedder/embedding'], np.float32)
  assert (np.abs(embedding).sum(axis=1) == 0).tolist() == [i == END for i in range(V)]


def test_a_parameter_without_a_place_is_named():
  import tunix_side

  with pytest.raises(ValueError, match=r'q_norm/scale of shape \(2, 16\) has no place'):
    list(tunix_side.tunix_arrays('layers/attn/q_norm/scale', np.ones((2, 16))))


def test_our_side_samples_its_budget(tmp_path):
  """The rollout on our side, by itself: tokens of each turn, none of them the end."""
  import our_side

  path, sizes = str(tmp_path / 'weights.npz'), tiny('smollm2_135m', 'float32')
  side = our_side.OurSide()
  side.draw(path, sizes, END)
  side.load(path, 'float32', sizes, turns=[[3, 4], [3 + 4 + 2, 5]])
  prompts = [[1, 2, 3], [4, 5, 6]]
  reply = side.rollout(prompts, 1, [END, 7], END)
  assert [[len(row) for row in turn] for turn in reply['tokens']] == [[4, 4], [5, 5]]
  assert END not in np.concatenate([np.ravel(turn) for turn in reply['tokens']])
  assert reply['seconds'] > 0 and reply['peak_bytes'] > 10**7
  assert side.rollout(prompts, 1, [END, 7], END)['tokens'] == reply['tokens']
  shared = side.rollout(prompts, 2, [END, 7], END)['tokens']
  assert shared == [[row for row in turn for _ in range(2)] for turn in reply['tokens']]
  # Prompts and answers of other lengths: each row ends where it is told to.
  lengths = [[4, 2], [3, 5]]
  short = side.rollout([[1, 2, 3], [4, 5]], 1, [END, 7], END, lengths=lengths, slots=2)
  assert [[len(row) for row in turn] for turn in short['tokens']] == lengths
  assert short['tokens'][0][0] == reply['tokens'][0][0]
  assert short['decoded'] >= 4 + 2 + 3 + 5 and short['seconds'] > 0
  with pytest.raises(ValueError, match='needs 0, but is followed by 7'):
    side.rollout(prompts, 1, [7, 7], END)


def test_sizes_are_the_presets():
  """Both sides run the published sizes; only the rotary base is the one that Tunix has."""
  import tunix_rollout as benchmark

  for name in ('smollm2_135m', 'qwen2_5_1_5b'):
    config = benchmark.model_config(name, is_tiny=False, dtype='float32')
    published = preset(name)
    for field in ('vocab_size', 'num_layers', 'embed_dim', 'mlp_dim', 'num_heads', 'head_dim'):
      assert getattr(config, field) == getattr(published, field)
    assert config.rope_base == 1e6 and config.tie_embeddings
