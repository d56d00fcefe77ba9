"""The vocabulary of floor 0: masked reductions, episodes, the axis table, configs, data order."""

import ast
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

import score_jax
from score_jax.core import sharding
from score_jax.core.config import default_config
from score_jax.core.config_check import check_config
from score_jax.core.masked import masked_max, masked_mean, masked_sum
from score_jax.core.types import Episode, compact, turn_masks
from score_jax.model.decoder import DecoderConfig, abstract_params
from score_jax.rollout.order import problem_indices

X = np.array([[1.0, 2.0, np.nan], [np.nan, 4.0, 8.0]], np.float32)
MASK = ~np.isnan(X)
EMPTY = np.zeros_like(MASK)


@pytest.mark.parametrize('axis', [None, 0, 1])
def test_masked_reductions_ignore_what_is_outside(axis):
  np.testing.assert_array_equal(masked_sum(X, jnp.asarray(MASK), axis), np.nansum(X, axis))
  np.testing.assert_array_equal(masked_mean(X, jnp.asarray(MASK), axis), np.nanmean(X, axis))
  assert float(masked_max(X, jnp.asarray(MASK))) == 8.0
  # By hand: 1 + 2 + 4 + 8 = 15, over 4 numbers.
  assert float(masked_sum(X, jnp.asarray(MASK))) == 15.0
  assert float(masked_mean(X, jnp.asarray(MASK))) == 3.75


@pytest.mark.parametrize('reduction', [masked_sum, masked_mean, masked_max])
def test_masked_reductions_of_nothing_are_0(reduction):
  assert float(reduction(X, jnp.asarray(EMPTY))) == 0.0
  gradient = jax.grad(lambda x: reduction(x, jnp.asarray(MASK)))(X)
  assert np.all(np.isfinite(gradient)), 'a NaN outside the mask reaches the gradient'
  assert not np.any(gradient[~MASK])


@pytest.mark.parametrize('reduction', [masked_sum, masked_mean, masked_max])
def test_masked_reductions_refuse_other_masks(reduction):
  with pytest.raises(AssertionError):
    reduction(X, jnp.asarray(MASK[:, :2]))
  with pytest.raises(AssertionError):
    reduction(X, jnp.asarray(MASK, jnp.float32))  # weights are not a mask


# Two rows in 7 slots, `.` a hole:  a b . 1 1 . 2   and   a . . 1 . e 2   with 1 and 2 the tokens
# sampled in each turn and e an end of turn that was appended, not sampled.
IS_TOKEN = np.array([[1, 1, 0, 1, 1, 0, 1], [1, 0, 0, 1, 0, 1, 1]], bool)
TURN = np.array([[0, 0, 0, 1, 1, 0, 2], [0, 0, 0, 1, 0, 0, 2]])


def holey_episode():
  is_sampled = TURN > 0
  return Episode(
    tokens=jnp.arange(10, 24).reshape(2, 7),
    positions=jnp.asarray(np.where(IS_TOKEN, np.cumsum(IS_TOKEN, axis=1) - 1, 99)),
    is_token=jnp.asarray(IS_TOKEN),
    turn=jnp.asarray(TURN),
    is_sampled=jnp.asarray(is_sampled),
    sampled_logp=jnp.where(is_sampled, -0.5 - jnp.arange(14.0).reshape(2, 7), 0.0),
    is_truncated=jnp.array([[False, False], [True, False]]),
  )


def test_turn_masks():
  episode = holey_episode()
  want = [[[turn == k and turn > 0 for turn in row] for k in (1, 2, 3)] for row in TURN]
  masks_BKT = np.asarray(turn_masks(episode, 3))
  np.testing.assert_array_equal(masks_BKT, want)
  assert masks_BKT[:, :2].any(axis=-1).all() and not masks_BKT[:, 2].any()
  # A given turn has tokens and trains none.
  given = episode.replace(is_sampled=jnp.asarray(TURN == 2))
  masks_BKT = np.asarray(turn_masks(given, 2))
  assert not masks_BKT[:, 0].any() and masks_BKT[:, 1].any(axis=-1).all()


@pytest.mark.parametrize('length', [5, 6, 9])
def test_compact_is_a_stable_left_shift(length):
  episode = holey_episode()
  short = jax.jit(compact, static_argnums=1)(episode, length)
  again = jax.jit(compact, static_argnums=1)(short, length)
  episode, short, again = jax.device_get((episode, short, again))
  for name in ('tokens', 'is_token', 'turn', 'is_sampled', 'sampled_logp'):
    for b in range(2):
      real = [
        x for x, is_token in zip(getattr(episode, name)[b], IS_TOKEN[b], strict=True) if is_token
      ]
      want = [x.item() for x in real] + [0] * (length - len(real))
      assert getattr(short, name)[b].tolist() == want, name
      assert getattr(short, name).dtype == getattr(episode, name).dtype
  np.testing.assert_array_equal(short.positions, [range(length)] * 2)
  np.testing.assert_array_equal(short.is_truncated, episode.is_truncated)
  # By hand: the first row keeps slots 0, 1, 3, 4, 6 of 10..16, the second 0, 3, 5, 6 of 17..23.
  assert short.tokens[:, :5].tolist() == [[10, 11, 13, 14, 16], [17, 20, 22, 23, 0]]
  np.testing.assert_array_equal(again.tokens, short.tokens)


def test_partition_spec():
  assert sharding.partition_spec(('batch', 'length', None)) == P(('data', 'fsdp'), None, None)
  assert sharding.partition_spec(('layers', 'embed', 'heads', 'head_dim')) == P(
    None, 'fsdp', 'tensor', None
  )
  with pytest.raises(ValueError, match="'vocabulary' has no rule; known: .*'vocab'"):
    sharding.partition_spec(('vocabulary', 'embed'))
  with pytest.raises(ValueError, match="two dimensions on mesh axis 'tensor'"):
    sharding.partition_spec(('heads', 'mlp'))
  with pytest.raises(ValueError, match="two dimensions on mesh axis 'fsdp'"):
    sharding.partition_spec(('batch', 'embed'))
  with pytest.raises(ValueError, match='2 axis names .* for an array of shape'):
    sharding.constrain(jnp.ones((2, 3, 4)), ('batch', 'length'))


def axes_of_parameters():
  """Names that the axes of some parameter have."""
  config = DecoderConfig(8, 2, 4, 6, 2, 1, 2, tie_embeddings=False)
  shapes, axes = abstract_params(config)
  shapes = jax.tree.leaves(shapes)
  axes = jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, tuple))
  for shape, names in zip(shapes, axes, strict=True):
    assert len(shape.shape) == len(sharding.partition_spec(names)), names
  return {name for names in axes for name in names if name is not None}


def axes_of_activations():
  """Names in the tuples that the package's calls of `constrain` end in."""
  names = set()
  for path in pathlib.Path(score_jax.__file__).parent.rglob('*.py'):
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
      if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'constrain':
        if isinstance(node.args[1], ast.Call):  # `decoding_axes`: names of parameters' axes
          continue
        axes = ast.literal_eval(node.args[1])
        sharding.partition_spec(axes)  # every call is one that the table allows
        names.update(name for name in axes if name is not None)
  return names


def test_every_rule_is_used():
  """A rule that silently never applies costs a pod."""
  assert axes_of_parameters() | axes_of_activations() == set(sharding.RULES)
  assert {axis for axes in sharding.RULES.values() for axis in axes} == set(sharding.MESH_AXES)


@pytest.mark.parametrize(
  ('shape', 'num_devices', 'want'),
  [
    ((-1, 1, 1), 8, (8, 1, 1)),
    ((2, -1, 2), 8, (2, 2, 2)),
    ((1, 4, 2), 8, (1, 4, 2)),
    ((1, 1, -1), 1, (1, 1, 1)),
  ],
)
def test_make_mesh(shape, num_devices, want):
  mesh = sharding.make_mesh(shape, jax.devices()[:1] * num_devices)
  assert mesh.axis_names == ('data', 'fsdp', 'tensor') and mesh.devices.shape == want
  assert sharding.batch_rows(mesh) == want[0] * want[1]


@pytest.mark.parametrize(
  ('shape', 'message'),
  [
    ((1, 1), 'needs 3 sizes'),
    ((3, 1, 1), r'config.mesh=\(3, 1, 1\) does not fit 8 devices'),
    ((-1, 3, 1), 'does not fit 8 devices'),
    ((-1, 16, 1), 'does not fit 8 devices'),
    ((-1, -1, 8), 'does not fit 8 devices'),
    ((-1, -2, 1), 'does not fit 8 devices'),
    ((0, 8, 1), 'does not fit 8 devices'),
    ((-1, 0, 1), 'does not fit 8 devices'),
  ],
)
def test_make_mesh_refuses(shape, message):
  with pytest.raises(ValueError, match=message):
    sharding.make_mesh(shape, jax.devices()[:1] * 8)


def test_check_config_takes_the_defaults():
  config = default_config()
  check_config(config)
  config.optimizer.learning_rate = 1  # an int where a float is wanted
  config.stage.kl_weight = (1, 0.5, 0)  # of any length
  config.rollout.turn_tokens = [4, 8]
  config.task.level_weights = ConfigDict({'3': 0.5, '4': 0.5})  # its names are data
  config.chat.options.enable_thinking = False  # these too
  check_config(config)


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('train.num_step', 5, r'config\.train\.num_step: no such key'),
    ('trian.num_steps', 5, r'config\.trian\.num_steps: no such key'),
    ('train', 5, r'config\.train: no such key'),
    ('train.num_steps', '5', r"config\.train\.num_steps='5' is a str, not a int"),
    ('train.num_steps', 5.0, r'config\.train\.num_steps=5\.0 is a float'),
    ('train.num_steps', True, r'config\.train\.num_steps=True is a bool'),
    ('train.num_steps', None, r'config\.train\.num_steps=None'),
    ('train.progress', 1, r'config\.train\.progress=1 is a int, not a bool'),
    ('optimizer.learning_rate', True, r'config\.optimizer\.learning_rate=True is a bool'),
    ('optimizer.learning_rate', '1e-5', r"config\.optimizer\.learning_rate='1e-5' is a str"),
    ('model.preset', 1, r'config\.model\.preset=1 is a int, not a str'),
    ('rollout.turn_tokens', 16, r'config\.rollout\.turn_tokens=16 is a int, not a tuple'),
    ('rollout.turn_tokens', (16, 1.5), r'config\.rollout\.turn_tokens=\(16, 1\.5\)'),
    (
      'stage.bonus',
      (0.0, 'ten'),
      r'config\.stage\.bonus=.* is a tuple of float and str, not a tup',
    ),
    ('mesh', (2.0, 4, 1), r'=\(2\.0, 4, 1\) is a tuple of float and int, not a tuple of int$'),
    ('train.num_steps', 0, r'config\.train\.num_steps=0 must be at least 1'),
    (
      'stage.kl_weight',
      (0.1, -1.0),
      r'config\.stage\.kl_weight=\(0\.1, -1\.0\) must be at least 0',
    ),
    ('optimizer.clip_norm', -1.0, r'config\.optimizer\.clip_norm=-1\.0 must be at least 0'),
    ('optimizer.b1', 1.0, r'config\.optimizer\.b1=1\.0 must be at least 0 and below 1'),
    ('train.random_reward', 1.7, r'config\.train\.random_reward=1\.7 must be from 0 to 1'),
    ('grader.timeout_s', 0, r'config\.grader\.timeout_s=0 must be above 0'),
    ('eval.top_p', 0.0, r'config\.eval\.top_p=0\.0 must be above 0 and at most 1'),
    ('rollout.temperature', float('nan'), r'config\.rollout\.temperature=nan must be finite'),
    ('stage.bonus', (0.0, float('inf')), r'config\.stage\.bonus=\(0\.0, inf\) must be finite'),
  ],
)
def test_check_config_refuses(key, value, message):
  tree = default_config().to_dict()
  *groups, leaf = key.split('.')
  inner = tree
  for group in groups:
    inner = inner.setdefault(group, {})
  inner[leaf] = value
  with pytest.raises(ValueError, match=message):
    check_config(ConfigDict(tree))


def test_check_config_names_every_fault():
  config = default_config()
  del config.seed
  config.model.dtpye = 'bfloat16'
  with pytest.raises(ValueError) as error:
    check_config(config)
  assert 'config.seed: missing' in str(error.value)
  assert 'config.model.dtpye: no such key' in str(error.value)


@pytest.mark.parametrize(('num_problems', 'per_step'), [(12, 4), (13, 4), (7, 7), (5, 1)])
def test_an_epoch_repeats_no_problem(num_problems, per_step):
  steps = num_problems // per_step
  epochs = []
  for epoch in range(3):
    drawn = [problem_indices(3, epoch * steps + i, per_step, num_problems) for i in range(steps)]
    epochs.append(np.concatenate(drawn).tolist())
    assert len(set(epochs[-1])) == steps * per_step and set(epochs[-1]) <= set(range(num_problems))
  assert epochs[0] != epochs[1] != epochs[2]


def test_order_is_a_function_of_seed_and_step():
  again = [problem_indices(0, 5, 4, 100).tolist() for _ in range(2)]
  assert again[0] == again[1]
  assert problem_indices(1, 5, 4, 100).tolist() != again[0]


@pytest.mark.parametrize('process_count', [2, 4])
@pytest.mark.parametrize('step', [0, 2, 7])
def test_processes_share_the_single_order(process_count, step):
  shares = [problem_indices(0, step, 8, 20, i, process_count) for i in range(process_count)]
  assert {len(share) for share in shares} == {8 // process_count}
  np.testing.assert_array_equal(np.concatenate(shares), problem_indices(0, step, 8, 20))


def test_order_refuses():
  with pytest.raises(ValueError, match='problems_per_step=8 is more than the 7 training problems'):
    problem_indices(0, 0, 8, 7)
  with pytest.raises(ValueError, match='problems_per_step=8 is not a multiple of 3 processes'):
    problem_indices(0, 0, 8, 20, 0, 3)


class FakeDevice:
  """Stands for a device of some process."""

  def __init__(self, process_index):
    self.process_index = process_index


@pytest.mark.parametrize(
  ('shape', 'processes', 'is_allowed'),
  [
    ((4, 1, 1), (0, 0, 1, 1), True),
    ((1, 2, 2), (0, 0, 1, 1), True),
    ((1, 1, 4), (0, 0, 1, 1), False),  # one row on both processes
    ((2, 1, 2), (0, 1, 0, 1), False),
    ((4, 1, 1), (0, 1, 0, 1), False),  # a process's rows lie apart
    ((4, 1, 1), (0, 0, 0, 1), False),  # unequal shares
  ],
)
def test_rows_belong_to_one_process(shape, processes, is_allowed):
  mesh = types.SimpleNamespace(
    devices=np.asarray([FakeDevice(i) for i in processes]).reshape(shape),
    shape=dict(zip(sharding.MESH_AXES, shape, strict=True)),
  )
  if is_allowed:
    sharding._check_rows_are_local(mesh)
    return
  with pytest.raises(ValueError, match='make data . fsdp a multiple of the 2 processes'):
    sharding._check_rows_are_local(mesh)
