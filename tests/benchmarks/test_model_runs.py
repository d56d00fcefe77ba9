"""The benchmarks of the model run: each prints one table of numbers that can be true."""

import math
import runpy
import sys

import jax
import pytest
from makers import ROOT

from score_jax.model.decoder import DecoderConfig

FOLDER = ROOT / 'benchmarks'


@pytest.fixture
def run(monkeypatch, capsys):
  """Runs a script with --tiny; gives its heading and its table, a dict for each row."""
  monkeypatch.syspath_prepend(FOLDER)
  precision = jax.config.jax_default_matmul_precision

  def run(name, *more):
    monkeypatch.setattr(sys, 'argv', [name, '--tiny', '--commit=abcdef0123-dirty', *more])
    runpy.run_path(str(FOLDER / name), run_name='__main__')
    heading, _, table = capsys.readouterr().out.partition('\n|')
    header, rule, *rows = [line.strip('| ').split(' | ') for line in table.splitlines()]
    assert set(''.join(rule)) <= set('-|') and rows
    return heading, [dict(zip(header, row, strict=True)) for row in rows]

  yield run
  jax.config.update('jax_default_matmul_precision', precision)


def check_numbers(row, but=()):
  """All cells of a row are positive numbers, but for those named."""
  for key in row.keys() - set(but):
    assert math.isfinite(float(row[key])) and float(row[key]) > 0, (key, row)


def check_heading(heading):
  """It names the hardware, the version of jax and the commit."""
  title, blank, hardware, *_ = heading.splitlines()
  assert title.startswith('### ') and not blank
  assert f'jax {jax.__version__}; commit abcdef0-dirty' in hardware and len(hardware) > 50


def test_decoding(run):
  heading, (row,) = run('decode_roofline.py')
  check_heading(heading)
  assert 'GB/s' in heading and 'TFLOP/s' in heading
  assert row['batch'] == '2' and row['bound by'] in ('bytes', 'FLOPs')
  check_numbers(row, but=['bound by'])
  # Rows, and tokens a second, make the time of a token of all rows.
  per_token_ms = 1e3 * 2 / float(row['tokens/s'])
  assert float(row['ms per token of all rows']) == pytest.approx(per_token_ms, rel=0.02)
  share = float(row['roofline, ms']) / per_token_ms
  assert float(row['share of the roofline']) == pytest.approx(share, rel=0.02)


def test_costs_of_a_token_by_hand(run, monkeypatch):
  """One layer of width 2 with one head of size 2, F = 3, V = 5; the fourth token of two rows."""
  token_costs = runpy.run_path(str(FOLDER / 'decode_roofline.py'))['token_costs']
  c = DecoderConfig(5, 1, 2, 3, num_heads=1, num_kv_heads=1, head_dim=2, dtype='bfloat16')
  weights = 4 * 2 * 2 + 3 * 2 * 3 + 2 * 5
  num_bytes, num_flops = token_costs(c, 2, 3)
  assert num_bytes == 2 * (weights + 2 * 4 * 2 * 2)  # rows, tokens, key and value, their size
  assert num_flops == 2 * (2 * weights) + 2 * 4 * (4 * 2)


def test_update(run):
  heading, (row,) = run('train_mfu.py', '--remat=block')
  check_heading(heading)
  assert 'remat block' in heading
  check_numbers(row)
  assert float(row['tokens/s']) == pytest.approx(2 * 16 / float(row['seconds']), rel=0.02)
  assert float(row['temporary, GiB']) <= float(row['all, GiB (compiler)'])


@pytest.mark.slow
def test_scaling(run):
  heading, rows = run('scaling.py')
  check_heading(heading)
  for row in rows:
    check_numbers(row, but=['model'])
  points = runpy.run_path(str(FOLDER / 'scaling.py'))['points']
  assert points(['a', 'b'], [1, 2], [8, 16]) == [
    ('a', 1, 8),
    ('b', 1, 8),
    ('a', 2, 8),
    ('a', 1, 16),
  ]


@pytest.mark.slow
def test_host_share(run):
  """Programs alone may be slower than among the trainer's work where a machine is busy."""
  heading, (row,) = run('host_share.py')
  check_heading(heading)
  check_numbers(row, but=['share not on the device'])
  share = 1 - float(row['its programs alone, ms']) / float(row['ms per step'])
  assert float(row['share not on the device']) == pytest.approx(share, abs=0.02)


def test_benchmarks_of_parts_import_little(run_python):
  """They run where there is only what jax and flax bring, and chex."""
  needless = {'ml_collections', 'tensorflow_datasets', 'sentencepiece', 'gguf', 'sympy', 'tqdm'}
  code = (
    f'import sys; sys.path.insert(0, {str(FOLDER)!r})\n'
    'import decode_roofline, scaling, train_mfu\n'
    f'print(sorted({needless!r} & set(sys.modules)))'
  )
  done = run_python('-c', code)
  assert (done.returncode, done.stdout) == (0, '[]\n'), done.stderr
