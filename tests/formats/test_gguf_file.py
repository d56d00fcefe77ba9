"""Opening a GGUF file: damage is named, and a file in a bucket leaves no copy behind."""

import numpy as np
import pytest
from small_models import write_gguf

from score_jax.formats import gguf_file


def write(path):
  """Writes a file with all kinds of metadata and two tensors."""
  metadata = {
    'llama.block_count': 2,
    'llama.rope.freq_base': 100.0,
    'tokenizer.chat_template': 'text ' * 50,
    'tokenizer.ggml.tokens': [f'token {i}' for i in range(100)],
    'tokenizer.ggml.token_type': [1] * 100,
  }
  norm = np.ones((40, 32), np.float32)
  return write_gguf(path, metadata, {f'blk.{i}.attn_norm.weight': norm for i in range(2)})


def read(path):
  with gguf_file.open_gguf(path) as file:
    return file.metadata('llama.block_count')


def test_missing_and_foreign_files(tmp_path):
  with pytest.raises(ValueError, match=r'no GGUF file at .*gone\.gguf'):
    read(tmp_path / 'gone.gguf')
  with pytest.raises(ValueError, match='no GGUF file'):
    read(tmp_path)
  for content in (b'', b'PK\x03\x04' * 100):
    (tmp_path / 'zip.gguf').write_bytes(content)
    with pytest.raises(ValueError, match=rf'zip\.gguf \({len(content)} bytes\) is not a GGUF file'):
      read(tmp_path / 'zip.gguf')


def test_truncated_files(tmp_path):
  """Wherever a file is cut, metadata or weights, it is refused and never read as something else."""
  content = write(tmp_path / 'tiny.gguf').read_bytes()
  cut = tmp_path / 'cut.gguf'
  for size in [*range(1, 3000, 97), *range(3000, len(content), 5_003), len(content) - 1]:
    cut.write_bytes(content[:size])
    with pytest.raises(ValueError, match=rf'cut\.gguf \({size:,} bytes\) is not .* truncated'):
      read(cut)


def test_a_remote_file_is_copied_and_the_copy_removed(tmp_path, monkeypatch):
  path = write(tmp_path / 'tiny.gguf')

  class Remote:
    """Behaves like an epath in a bucket."""

    def __fspath__(self):
      return 'gs://bucket/tiny.gguf'

    def exists(self):
      return True

    def is_dir(self):
      return False

    def open(self, mode):
      return open(path, mode)

  copies = tmp_path / 'copies'
  copies.mkdir()
  monkeypatch.setattr(gguf_file.epath, 'Path', lambda _: Remote())
  monkeypatch.setattr(gguf_file.tempfile, 'tempdir', str(copies))
  with gguf_file.open_gguf('gs://bucket/tiny.gguf') as file:
    assert file.path == 'gs://bucket/tiny.gguf'
    assert len(list(copies.rglob('*.gguf'))) == 1
    assert file.number('llama.block_count') == 2
  assert not list(copies.iterdir())
