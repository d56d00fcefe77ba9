"""Files that are written whole."""

from etils import epath

from score_jax.runs import files


def listing(directory):
  return {path.name: path.read_text() for path in sorted(epath.Path(directory).iterdir())}


def test_write_atomic_replaces_whole_files_and_leaves_no_litter(tmp_path):
  path = tmp_path / 'deep' / 'file.txt'
  (tmp_path / 'deep').mkdir()
  (tmp_path / 'deep' / '.file.txt.tmp').write_text('half of what a killed process wro')
  files.write_atomic(path, 'a longer first text')
  files.write_atomic(path, 'short')
  assert listing(tmp_path / 'deep') == {'file.txt': 'short'}
