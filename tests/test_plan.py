"""The command that plans: what bad input gets."""

from forked import run_command_lines

MISTAKES = [
  (['--topology=v5p:2x2x1'], '--config is not set'),
  (['--config=configs/stage2_math.py'], '--topology is not set, for example'),
  (['--config=configs/stage2_math.py', '--topology=v9:2x2'], "the chip 'v9' is none of"),
  (['--config=configs/stage2_math.py', '--topology=v5e:2x2,v5p:2x2'], "no slice of v5p is '2x2'"),
  (['--config=configs/stage2_math.py:nope', '--topology=v5p:2x2x1'], "preset 'nope' is none"),
  (['--topolgy=v5p:2x2x1'], "Unknown command line flag 'topolgy'"),
  (['--instruction_tokens=-1'], '--help shows the flags'),
]


def test_the_command_says_what_is_missing():
  found = run_command_lines('score_jax.plan', [line for line, _ in MISTAKES])
  for (line, message), (status, errors) in zip(MISTAKES, found, strict=True):
    assert status == 2 and message in errors and 'Traceback' not in errors, (line, errors)
