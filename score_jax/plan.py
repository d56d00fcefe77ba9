"""Plans a run on TPUs that are not there: memory, messages and time, from the compiled programs.

    python -m score_jax.plan --config=configs/stage2_math.py --topology=v5p:2x2x1

The rollout and the update of the config are compiled for the topology by TPU's own compiler
(libtpu), which runs on any Linux machine. Weights, tokenizer and data are not needed. Ends with
exit status 1, and says what to change, when the run does not fit or keeps a large array whole
along an axis of the mesh by accident. Of several topologies the first that the run fits is planned.
docs/planning.md says what is assumed.
"""

import json

from absl import flags
from etils import epath
from ml_collections import config_flags

from score_jax.cli import program
from score_jax.core.config_check import check_config
from score_jax.planning.report import plan_text
from score_jax.planning.tpu import first_that_fits
from score_jax.runs.files import check_writable, write_atomic

_TOPOLOGIES = flags.DEFINE_list(
  'topology', None, 'Chips and their shape, such as v5p:4x4x8; of several the first that fits.'
)
_OUTPUT = flags.DEFINE_string('json', '', 'Also write the plan to this file, as JSON.')
_INSTRUCTION = flags.DEFINE_integer(
  'instruction_tokens', 64, 'Tokens between two answers; a tokenizer would tell.', lower_bound=0
)


def _body() -> None:
  if not _TOPOLOGIES.value:
    program.fail('--topology is not set, for example --topology=v5p:4x4x8')
  config = program.given_config('a run')
  check_config(config)
  if _OUTPUT.value:
    check_writable(epath.Path(_OUTPUT.value).parent, '--json')
  name = config_flags.get_config_filename(flags.FLAGS['config'])
  plan, too_small = first_that_fits(config, name, _TOPOLOGIES.value, _INSTRUCTION.value)
  if plan['programs']:
    print(plan_text(plan))
  if _OUTPUT.value:
    write_atomic(_OUTPUT.value, json.dumps(plan | {'too_small': too_small}, indent=1) + '\n')
  if len(too_small) == len(_TOPOLOGIES.value):
    raise SystemExit(1)


if __name__ == '__main__':
  program.run_program(_body, 'config')
