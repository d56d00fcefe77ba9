"""The secret that the judge's random stream comes from.

Tests that draw their inputs (HumanEval 38 and 50) can be passed without doing the work by whoever
knows the draws. So the seed is made of the program's text, for that the same program meets the same
inputs again, and of a secret that no program can know: it lies in a file outside the sandbox.
"""

import hashlib
import hmac
import os
import secrets
import tempfile

from etils import epath

from score_jax.tasks.datasets.files import cache_dir

_NUM_BYTES = 32


def read_secret(cache: str | os.PathLike[str] = '') -> bytes:
  """Reads the secret, and draws it where there is none yet.

  It lies in the cache, so that a resumed run, other runs and an evaluation grade alike. Machines
  that share a cache share it; of processes that start at once, the first one's stays (in a bucket,
  which knows no such thing, the last one's does from the next start on).

  Args:
    cache: folder, local or in a bucket; see `score_jax.tasks.datasets.files.cache_dir`.

  Returns:
    32 bytes.

  Raises:
    ValueError: the file cannot be read or written, or holds something else.
  """
  path = cache_dir(cache) / 'judge_secret'
  try:
    if not path.exists():
      _draw(path)
    secret = bytes.fromhex(path.read_text())
  except OSError as error:
    raise ValueError(
      f'{path}, the secret of the random tests, can be neither read nor written '
      f'({error.strerror or error}); set --config.data.cache to a folder that can'
    ) from error
  except ValueError:
    secret = b''
  if len(secret) != _NUM_BYTES:
    raise ValueError(
      f'{path} holds no secret of {_NUM_BYTES} bytes: delete it, and another is drawn'
    )
  return secret


def make_seed(secret: bytes, program: str) -> str:
  """The seed of the tests' random stream for one program: HMAC-SHA256 in hexadecimal.

  Example:
    >>> make_seed(b'a', 'f = 1') == make_seed(b'a', 'f = 1') != make_seed(b'b', 'f = 1')
    True
  """
  return hmac.new(secret, program.encode('utf-8', 'surrogatepass'), hashlib.sha256).hexdigest()


def _draw(path: epath.Path) -> None:
  """Writes a new secret, whole, unless another process was faster."""
  path.parent.mkdir(parents=True, exist_ok=True)
  text = secrets.token_hex(_NUM_BYTES)
  if '://' in str(path):
    path.write_text(text)
    return
  with tempfile.NamedTemporaryFile('w', dir=path.parent) as file:
    file.write(text)
    file.flush()
    os.chmod(file.name, 0o644)  # a cache may be shared by several users
    try:
      os.link(file.name, path)
    except FileExistsError:
      pass
