"""Which code is running; every saved result names it."""

import pathlib
import subprocess


def commit() -> str:
  """The commit of the running code, with '-dirty' for changes; 'unknown' outside a checkout."""
  folder = pathlib.Path(__file__).parent
  command = ['git', '-C', str(folder), 'describe', '--always', '--abbrev=40', '--dirty']
  try:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
  except (OSError, subprocess.SubprocessError):
    return 'unknown'
  return done.stdout.strip()
