"""Verdicts of the checker, kept until the step they belong to can never be done again.

A checker with a time limit is the one part of a step that is not a function of the state: the
same answer can pass today and time out on a busier machine. A run that is killed and does a step
again must not train on other rewards than the first time, so

    verdicts = store.get(step)
    if verdicts is None:
      verdicts = grade(...)
      store.put(step, verdicts)         # on disk *before* they are used
    ...
    store.drop_through(step)            # once no resume can go back to this step

Each process keeps the verdicts of its own rows, in one file per step.
"""

from etils import epath

from score_jax.runs import files

DIRECTORY = 'verdicts'


class VerdictStore:
  """One small file per step and process.

  Example:
    >>> import tempfile
    >>> store = VerdictStore(tempfile.mkdtemp())
    >>> store.put(3, [[1, 0], [0, 1]]); store.get(3)
    [[1, 0], [0, 1]]
    >>> store.drop_through(3); store.get(3) is None
    True
  """

  def __init__(self, workdir: epath.PathLike, process_index: int = 0):
    """Opens the store; nothing is read or written yet.

    Args:
      workdir: the run directory, local or in a bucket.
      process_index: this process.
    """
    self._directory = epath.Path(workdir) / DIRECTORY
    self._suffix = f'-process{process_index:04d}.json'

  def _path(self, step: int) -> epath.Path:
    return self._directory / f'step{step:08d}{self._suffix}'

  def put(self, step: int, verdicts) -> None:
    """Writes the verdicts of a step; they are on disk when this returns.

    Args:
      step: the step.
      verdicts: nested lists and dicts of numbers, strings and None; arrays become lists.

    Raises:
      ValueError: for a value that JSON cannot hold.
    """
    files.write_atomic(self._path(step), files.to_json({'step': step, 'verdicts': verdicts}))

  def get(self, step: int):
    """Returns the verdicts of a step as plain lists and dicts, or None if there are none.

    Args:
      step: the step.

    Raises:
      ValueError: if the file is damaged, naming it.
    """
    path = self._path(step)
    if not path.exists():
      return None
    what_to_do = 'delete it, and the step is graded again'
    content = files.read_json(path, what_to_do)
    if not isinstance(content, dict) or content.get('step') != step or 'verdicts' not in content:
      raise ValueError(f'{path} does not hold the verdicts of step {step}: {what_to_do}')
    return content['verdicts']

  def drop_through(self, step: int) -> None:
    """Removes the verdicts of every step up to and including `step`.

    Args:
      step: the newest step that no resume can do again, such as
        `Checkpoints.oldest_resumable_step()`.
    """
    if not self._directory.exists():
      return
    for path in self._directory.iterdir():
      digits = path.name.removeprefix('step').removesuffix(self._suffix)
      if path.name == f'step{digits}{self._suffix}' and digits.isdigit() and int(digits) <= step:
        path.unlink()
