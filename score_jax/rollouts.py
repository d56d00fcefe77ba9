"""The former name of `score_jax.episodes`; says so and ends."""

import sys

if __name__ == '__main__':
  print('error: python -m score_jax.rollouts is now python -m score_jax.episodes', file=sys.stderr)
  raise SystemExit(0 if '--help' in sys.argv else 2)
