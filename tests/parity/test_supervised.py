"""Supervised training on given traces, beside `transformers` and torch on the same traces.

Theirs is the whole of it: the model, its loss (labels of -100 are left out, and the model shifts
them itself), torch's Adam and its clipping. Only the traces, as lists of ids, are shared.

What is left of a difference is mostly Adam's 1 - b2^t: torch takes it in float64, optax in float32,
where 1 - 0.999 is off by 1e-5 of itself. It grows with how far the loss moves.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.core.config import default_config
from score_jax.core.types import TrainState
from score_jax.formats import hf_folder
from score_jax.model.decoder import Decoder
from score_jax.setup.optimizer import make_optimizer
from score_jax.training.supervised import make_supervised_step
from score_jax.training.traces import Sample, Trace, batch_traces
from score_jax.training.train_step import forward

torch = pytest.importorskip('torch', reason='needs the extra [parity]')
transformers = pytest.importorskip('transformers', reason='needs the extra [parity]')

# Their warnings are not ours to mend.
pytestmark = pytest.mark.filterwarnings('default')

V, EOT, FOLLOWUP = 67, 66, (9, 3, 10)
NUM_UPDATES, NUM_BATCHES, ROWS = 10, 3, 6
SIZES = dict(
  vocab_size=V,
  hidden_size=24,
  intermediate_size=40,
  num_hidden_layers=2,
  num_attention_heads=4,
  num_key_value_heads=2,
  max_position_embeddings=128,
  attention_dropout=0.0,
  pad_token_id=0,
  bos_token_id=V - 2,
  eos_token_id=EOT,
)


@pytest.fixture(scope='module', params=['tied', 'untied'])
def folder(request, tmp_path_factory):
  """A folder with a model of random weights, so wide that its gradient must be clipped."""
  torch.set_num_threads(1)  # its threads wait by spinning: on a busy machine, two are far slower
  generator = torch.Generator().manual_seed(0)
  config = transformers.LlamaConfig(**SIZES, tie_word_embeddings=request.param == 'tied')
  model = transformers.LlamaForCausalLM(config)
  with torch.no_grad():
    for name, p in model.named_parameters():
      noise = torch.randn(p.shape, generator=generator)
      if p.ndim == 1:
        p.add_(0.3 * noise)
      else:
        p.copy_(noise * (0.3 if 'embed' in name else 1.0 / p.shape[1] ** 0.5))
  path = tmp_path_factory.mktemp('theirs')
  model.save_pretrained(path)
  return path


def draw_traces():
  """Three batches of traces of many lengths, some cut off; the last one does not fill its rows."""
  rng = np.random.default_rng(0)

  def ids(longest):
    return rng.integers(1, V - 2, rng.integers(1, longest)).tolist()

  def trace(i):
    is_cut = bool(rng.integers(2))
    first = ids(9) + ([] if is_cut else [EOT])
    s = Sample(i, ids(12), (first, ids(9)), (is_cut, False), (False, True))
    return Trace(s, [*ids(9), EOT])

  traces = [trace(i) for i in range(NUM_BATCHES * ROWS - 2)]
  assert len({t.sample.is_truncated[0] for t in traces}) == 2
  return [traces[i * ROWS : (i + 1) * ROWS] for i in range(NUM_BATCHES)]


def by_hand(traces):
  """Ids, attention mask and labels as `transformers` takes them; every row right-padded."""
  rows, labels = [], []
  for t in traces:
    s = t.sample
    context = s.prompt_ids + s.answer_ids[0] + [EOT] * s.is_truncated[0] + list(FOLLOWUP)
    rows.append(torch.tensor(context + t.second_ids))
    labels.append(torch.tensor([-100] * len(context) + t.second_ids))
  pad = torch.nn.utils.rnn.pad_sequence
  mask = pad([torch.ones_like(row) for row in rows], batch_first=True)
  labels = pad(labels, batch_first=True, padding_value=-100)
  return dict(input_ids=pad(rows, batch_first=True), attention_mask=mask, labels=labels)


def their_training(folder, o):
  """Losses and norms of the gradient of each update; what is learnt is written to a folder."""
  model = transformers.LlamaForCausalLM.from_pretrained(folder, attn_implementation='eager')
  model.train()
  adam = torch.optim.Adam(model.parameters(), lr=o.learning_rate, betas=(o.b1, o.b2), eps=o.eps)
  batches, losses, norms = draw_traces(), [], []
  for i in range(NUM_UPDATES):
    adam.zero_grad()
    loss = model(**by_hand(batches[i % NUM_BATCHES])).loss
    loss.backward()
    norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), o.clip_norm)))
    adam.step()
    losses.append(float(loss.detach()))
  model.save_pretrained(folder / 'trained')
  return np.array(losses), np.array(norms)


def our_training(folder, o, spoil=lambda batch: batch):
  """Losses and norms of the gradient of each update, and the last parameters."""
  config = hf_folder.read_config(folder)
  params = jax.tree.map(jnp.asarray, hf_folder.read_params(folder, config))
  decoder, optimizer = Decoder(config), make_optimizer(o)
  step = make_supervised_step(
    lambda trainable, _, traces: forward(decoder, trainable, traces), optimizer, chunk=7
  )
  state = TrainState(jnp.int32(0), params, optimizer.init(params))
  batches, found = draw_traces(), []
  for i in range(NUM_UPDATES):
    batch = batch_traces(batches[i % NUM_BATCHES], FOLLOWUP, EOT, ROWS, length_bucket=40)
    state, metrics = step(state, {}, spoil(batch))
    found.append([float(metrics[f'train/{key}']) for key in ('loss_nats', 'grad_norm')])
  return *np.array(found).T, jax.device_get(state.trainable)


@pytest.fixture(scope='module')
def optimizer_config():
  o = default_config().optimizer
  o.learning_rate = 5e-4
  return o


@pytest.fixture(scope='module')
def theirs(folder, optimizer_config):
  return their_training(folder, optimizer_config)


def test_losses_and_parameters_are_those_of_torch(folder, theirs, optimizer_config):
  losses, norms, params = our_training(folder, optimizer_config)
  their_losses, their_norms = theirs
  gap = np.abs(losses - their_losses).max()
  config = hf_folder.read_config(folder / 'trained')
  trained, first = (hf_folder.read_params(f, config) for f in (folder / 'trained', folder))
  params_gap, moved = (
    max(np.abs(x - y).max() for x, y in zip(*map(jax.tree.leaves, pair), strict=True))
    for pair in ((params, trained), (first, trained))
  )
  found = (
    f'losses {their_losses[0]:.4f} to {their_losses[-1]:.4f} differ by up to {gap:.1e}, parameters '
    f'(moved by up to {moved:.1e}) by up to {params_gap:.1e}; '
    f'norms of the gradient {their_norms.min():.2f} to {their_norms.max():.2f}'
  )
  print(found)
  # Else nothing was learnt, or nothing was clipped.
  assert their_losses[-1] < their_losses[0] - 0.3 and their_norms.max() > 1.5, found
  assert gap <= 1e-5 and params_gap <= 1e-4 < moved / 10, found
  np.testing.assert_allclose(norms, their_norms, rtol=1e-4)


def first_answer_too(batch):
  return batch.replace(is_target=batch.is_token)


def a_target_left_out(batch):
  return batch.replace(is_target=batch.is_target & np.roll(batch.is_target, 1, axis=1))


@pytest.mark.parametrize('folder', ['tied'], indirect=True)
@pytest.mark.parametrize(
  ('changes', 'spoil'),
  [
    ({}, first_answer_too),
    ({}, a_target_left_out),
    ({'learning_rate': 5.1e-4}, None),
    ({'clip_norm': 0.0}, None),
  ],
)
def test_the_check_can_fail(folder, theirs, optimizer_config, changes, spoil):
  o = optimizer_config.copy_and_resolve_references()
  o.update(changes)
  losses, _, _ = our_training(folder, o, spoil or (lambda batch: batch))
  gap = np.abs(losses - theirs[0])
  print(f'largest difference {gap.max():.1e}')
  assert gap.max() > 1e-4
  assert (gap[0] > 1e-3) == (spoil is not None)  # the first loss is before any update
