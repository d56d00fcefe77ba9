"""A run compiled for TPUs that are not there: what it takes of each chip."""

import importlib.metadata
import importlib.util
import math
import operator
import os

from score_jax.core.errors import in_words
from score_jax.planning.chips import chip_of
from score_jax.planning.costs import count
from score_jax.planning.hlo import parse
from score_jax.planning.report import faults, summary_of_costs

# What a plan rests on beside sizes, mesh and topology.
SETTINGS = (
  'rollout.problems_per_step',
  'rollout.samples_per_problem',
  'rollout.slots',
  'rollout.prompt_tokens',
  'rollout.turn_tokens',
  'train.micro_batches',
  'train.chunk_tokens',
  'model.dtype',
  'model.param_dtype',
  'model.remat',
  'model.scan_unroll',
  'model.attention',
  'model.offload_reference',
  'lora.rank',
  'lora.targets',
  'objective.kl_estimator',
  'objective.kl_credit',
  'stage.reference',
  'optimizer.mu_dtype',
)
# A parameter that is smaller may lie whole on every chip: norms and biases do.
MAX_WHOLE_BYTES = 2**20
# Norms, biases and adapters have the input's or the output's axis of a weight, not both, and so are
# whole along fsdp or tensor on purpose. A fault of the axis that they have shows in the weight.
ONE_SIDED = ('scale', '_bias', '_a', '_b')
# Chips of a host, where they are not 2 x 2.
_HOSTS = {'1x1': [1, 1, 1], '2x4': [2, 4, 1]}
_ENVIRONMENT = {
  # Two plans can be made at once: no TPU is used that only one of them could have.
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  # Without these libtpu looks for the metadata of a TPU machine, for minutes. The type is any that
  # it knows: the topology is named apart.
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_ACCELERATOR_TYPE': 'v5p-8',
  'TPU_WORKER_HOSTNAMES': 'localhost',
}


def tpu_devices(topology: str) -> list:
  """Describes the chips of a topology.

  Args:
    topology: such as 'v5p:4x4x8'.

  Returns:
    jax devices, which programs can be compiled for and not run on.

  Raises:
    ValueError: if there is no such topology, or no compiler for TPUs.
  """
  chip_of(topology)
  if importlib.util.find_spec('libtpu') is None:
    raise ValueError("the compiler for TPUs is not there: pip install 'score_jax[plan]'")
  for name, value in _ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  import jax
  from jax.experimental import topologies

  if 'JAX_PLATFORMS' not in os.environ:
    # With libtpu installed jax would look for TPUs of this machine.
    jax.config.update('jax_platforms', 'cpu')
  shape = topology.partition(':')[2]
  host = {'chips_per_host_bounds': _HOSTS[shape]} if shape in _HOSTS else {}
  try:
    return list(topologies.get_topology_desc(topology, 'tpu', **host).devices)
  except jax.errors.JaxRuntimeError as error:
    raise ValueError(f'--topology={topology}: {in_words(error)}') from error


def make_plan(config, name: str, topology: str, instruction_tokens: int) -> dict:
  """Compiles a run's programs for a topology and counts what they take.

  Args:
    config: a checked config.
    name: what the plan calls it.
    topology: such as 'v5p:4x4x8'.
    instruction_tokens: length of each instruction.

  Returns:
    The plan, as `score_jax.planning.report` describes it; bytes and seconds are those of one chip.

  Raises:
    ValueError: if numbers do not fit each other.
  """
  import jax

  from score_jax.core import sharding
  from score_jax.planning import memory, shapes, step

  devices = tpu_devices(topology)
  mesh = sharding.make_mesh(config.mesh, devices)
  run = shapes.planned_run(config, mesh, instruction_tokens)
  # As when the weights are read (`score_jax.setup.base_model.load_base`).
  precision = 'highest' if config.model.dtype == 'float32' else None
  state, frozen = shapes.abstract_update_inputs(run)
  counted = memory.count_memory(run)
  update = memory.device_bytes((state, frozen))
  programs = {}
  parts = (
    # Its parameters are prepared ones, beside those that are kept.
    ('rollout', lambda run: {k: x.compile() for k, x in shapes.lower_rollout(run).items()}, 0),
    ('update', lambda run: {'update': shapes.compile_update(run)}, update),
  )
  if counted.sampling > chip_of(topology).hbm_bytes:
    parts = ()  # more chips are needed, whatever the programs take
  for part, compile_it, arguments in parts:
    try:
      with jax.default_matmul_precision(precision):
        compiled = compile_it(run)
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      programs[part] = {'refused': str(error)}
      continue
    for program, one in compiled.items():
      beside = memory.bytes_beside(one, arguments) + _code_bytes(one)
      times = _times(run, program)
      programs[program] = _program(one, counted.kept + beside, mesh, topology, times)
  return {
    'config': name,
    'preset': config.model.preset,
    'topology': topology,
    'mesh': dict(mesh.shape),
    'versions': {x: importlib.metadata.version(x) for x in ('jax', 'libtpu')},
    'episodes': shapes.num_rows(run),
    'slots': run.spec.first_slot(run.spec.num_turns),
    'instruction_tokens': instruction_tokens,
    'settings': {key: operator.attrgetter(key)(config) for key in SETTINGS},
    'hbm_bytes': chip_of(topology).hbm_bytes,
    'kept_bytes': {
      'parameters': counted.trained,
      'optimizer': counted.optimizer,
      'reference': counted.base,
    },
    'cache_bytes': counted.cache,
    'rollout_at_least_bytes': counted.sampling,
    'model_flops': {key: x / math.prod(mesh.shape.values()) for key, x in model_flops(run).items()},
    'whole': whole_arrays({'state': state, 'frozen': frozen}, mesh.shape),
    'programs': programs,
    'step': programs
    and step.planned_step(run, programs, counted, chip_of(topology), instruction_tokens),
  }


def _code_bytes(compiled) -> int:
  return compiled.memory_analysis().generated_code_size_in_bytes


def _times(run, program: str) -> int:
  """How often the loop of a program runs that may end early, at most; 0 for none."""
  from score_jax.planning import shapes

  if program == 'update':
    return -(-shapes.num_rows(run) // shapes.update_rows(run))
  return shapes.rollout_sizes(run).steps if program.startswith('decode') else 0


def _program(compiled, peak: int, mesh, topology: str, times: int) -> dict:
  """What one call of a program takes of each chip."""
  from score_jax.planning.step import by_time

  m, module = compiled.memory_analysis(), parse(compiled.as_text())
  coordinates = [tuple(device.coords) for device in mesh.devices.flat]

  def costs(most):
    return summary_of_costs(count(module, chip_of(topology), mesh.shape, coordinates, most))

  found = costs(None)
  return {
    'peak_bytes': peak,
    'argument_bytes': m.argument_size_in_bytes,
    'result_bytes': m.output_size_in_bytes,
    'temporary_bytes': m.temp_size_in_bytes,
    'code_bytes': m.generated_code_size_in_bytes,
    **found,
    **(by_time(found, costs(1), times) if times else {}),
  }


def whole_arrays(tree, mesh_shape) -> list[dict]:
  """Finds large arrays that lie whole along an axis of the mesh that is there to split them.

  Some lie so on purpose: arrays of at most `MAX_WHOLE_BYTES`, those that are `ONE_SIDED` or have no
  dimension that the axis divides, and all of them along data, which splits the batch alone.

  Args:
    tree: of arrays or jax.ShapeDtypeStruct, with shardings.
    mesh_shape: sizes of the mesh's axes.

  Returns:
    Name, bytes on a chip, and those axes, 'fsdp' or 'tensor', of each.
  """
  import jax

  found = []
  for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]:
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if math.prod(x.shape) * x.dtype.itemsize <= MAX_WHOLE_BYTES or name.endswith(ONE_SIDED):
      continue
    part = x.sharding.shard_shape(x.shape)
    used = jax.tree.leaves(tuple(x.sharding.spec))
    axes = [
      axis
      for axis, size in mesh_shape.items()
      if axis not in ('data', *used) and size > 1 and any(n % size == 0 for n in part)
    ]
    if axes:
      found.append({'name': name, 'bytes': math.prod(part) * x.dtype.itemsize, 'axes': axes})
  return found


def model_flops(run) -> dict[str, float]:
  """What the mathematics needs, whatever the program does: see `score_jax.model.flops`.

  Args:
    run: from `score_jax.planning.shapes.planned_run`.

  Returns:
    FLOPs of all chips, of a rollout with all budgets spent and of an update of its episodes.
  """
  from score_jax.model.flops import sampling_flops, update_flops
  from score_jax.planning import shapes

  sizes, spec, rows = run.base.decoder.config, run.spec, shapes.num_rows(run)
  lengths, prompts = [spec.first_slot(spec.num_turns)] * rows, [spec.prompt_tokens] * rows
  sampled, group = rows * sum(spec.turn_tokens), run.config.rollout.samples_per_problem
  return {
    'rollout': sampling_flops(sizes, lengths, prompts, sampled, group),
    'update': update_flops(sizes, lengths, sampled, has_adapters=run.trainable.lora is not None),
  }


def first_that_fits(
  config, name: str, topologies: list[str], instruction_tokens: int
) -> tuple[dict, list[dict]]:
  """Plans a run for one topology after the other until it fits, and prints why it does not.

  Args:
    config, name, instruction_tokens: see `make_plan`.
    topologies: such as 'v5p:4x4x8'.

  Returns:
    The last plan that could be made, and the topologies that the run does not fit, with the faults.

  Raises:
    ValueError: for a topology that there is not, before anything is compiled; and, if none could
      be planned, what is wrong with the last.
  """
  for topology in topologies:
    chip_of(topology)
  plan, too_small = None, []
  for topology in topologies:
    try:
      plan = make_plan(config, name, topology, instruction_tokens)
      found = faults(plan)
    except ValueError as error:
      if plan is None and topology == topologies[-1]:
        raise
      found = [str(error)]  # the mesh, say, which may be right for another slice
    if not found:
      break
    too_small.append({'topology': topology, 'faults': found})
    print(f'{topology}: this plan cannot run:\n  ' + '\n  '.join(found), flush=True)
  return plan, too_small
