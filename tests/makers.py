"""What several test files make: paths, small models.

Imported as `makers`; `pythonpath` in pyproject.toml says where it lies. What needs jax imports it
late: conftest.py imports this file before it has said how jax shall be.
"""

import functools
import importlib.util
import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
TESTS = ROOT / 'tests'
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


def load(path):
  """The module that a Python file of the repository is, such as 'docs/make_config_page.py'."""
  spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, ROOT / path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def table_rows(text):
  """The cells of each line of the tables of a text, headings left out."""
  lines = [line for line in text.splitlines() if line.startswith('|')]
  rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
  is_rule = [set(''.join(row)) <= {'-'} for row in rows] + [False]
  return [row for i, row in enumerate(rows) if not is_rule[i] and not is_rule[i + 1]]


def tiny_decoder(**changes):
  """The config of a decoder of a few thousand parameters, no two of whose sizes are the same."""
  from score_jax.model.decoder_config import DecoderConfig

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


# Imports what takes seconds, once, and then forks for each command line: a fork runs the program.
_FORKING = """
import gc, json, os, runpy, sys, tempfile, warnings
import jax, ml_collections.config_flags
from score_jax.planning import dry_run, tpu
from score_jax.training import imitate
warnings.filterwarnings('ignore', message='os.fork')
gc.freeze()
module, lines = sys.argv[1], json.loads(sys.argv[2])
found = []
for line in lines:
  outputs = [tempfile.TemporaryFile('w+') for _ in range(2)]
  pid = os.fork()
  if pid == 0:
    for number, file in enumerate(outputs, start=1):
      os.dup2(file.fileno(), number)
    sys.argv = [module, *line]
    runpy.run_module(module, run_name='__main__', alter_sys=True)
    sys.exit()
  status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
  for file in outputs:
    file.seek(0)
  found.append((status, *(file.read() for file in outputs)))
print(json.dumps(found))
"""


def run_command_lines(run_python, module, lines):
  """Runs a program once for each list of arguments, all in the time of one import of jax.

  Returns:
    (exit status, standard output, standard error) of each.
  """
  done = run_python('-c', _FORKING, module, json.dumps(lines))
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)
