"""The fork server: starts a confined candidate in milliseconds, without a Python start each time.

    judge --socket--> zygote --fork--> keeper --fork--> candidate
                                          |                 |
                                       lifeline          channel       (two sockets from the judge)

The judge hands over two sockets per program. The candidate serves the channel. The keeper waits for
a byte on the lifeline, or its end, then kills the candidate, answers how it ended, and is gone. The
zygote runs nothing of a candidate's and never sees its program: it only forks, so there is nothing
in it that one candidate could leave for the next.

Everything dies downwards: judge, zygote, keeper, candidate, each with the one before.
"""

import gc
import importlib
import os
import select
import signal
import socket
import sys
import sysconfig
import traceback

from score_jax.tasks.code import candidate, isolation, wire

# Imported once, here, for all candidates: what programs ask for, and what needs a shared library
# that lies outside the standard library.
_IMPORTS = (
  'array bisect bz2 cmath collections copy csv ctypes dataclasses datetime decimal enum fractions '
  'functools hashlib heapq io itertools json lzma math numbers operator os pprint queue random re '
  'sqlite3 statistics string struct sys textwrap threading time typing unicodedata uuid zlib'
).split()


def main(descriptor: int, parent: int, memory_bytes: int, cpu_s: int) -> None:
  """Serves the judge until it closes its socket.

  The first message to the judge is what isolation there is: [layers, what holds].

  Args:
    descriptor: the socket to the judge.
    parent: the judge's process.
    memory_bytes: address space of each candidate.
    cpu_s: seconds of processor time of each candidate.
  """
  isolation.die_with_parent()
  if os.getppid() != parent:
    return
  confinement = isolation.Confinement(memory_bytes, cpu_s)
  outside = os.path.abspath(__file__)
  _forget_the_outside()
  confinement.prepare()
  with socket.socket(fileno=descriptor) as judge:
    holds = _try_out(confinement, outside)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel clears keepers away
    # What is there stays where it is, and is shared with every candidate.
    gc.collect()
    gc.freeze()
    judge.sendall(wire.pack([confinement.layers, holds]))
    while True:
      message, descriptors, _, _ = socket.recv_fds(judge, 1, 2)
      if not message:
        return
      pid = os.fork()
      if pid == 0:
        try:
          judge.close()
          channel, lifeline = descriptors
          status = _keep(confinement, candidate.serve, channel, lifeline)
          os.write(lifeline, b'%d' % status)
        except Exception:
          traceback.print_exc()  # the judge is gone, or a layer could not be laid on
        finally:
          os._exit(0)
      for received in descriptors:
        os.close(received)


def _forget_the_outside() -> None:
  """Imports what candidates need; after that only the standard library is on the path."""
  for name in _IMPORTS:
    try:
      importlib.import_module(name)
    except ImportError as error:  # an interpreter built without it
      print(f'candidates have no {name}: {error}', file=sys.stderr)
  standard = [sysconfig.get_path(name) for name in ('stdlib', 'platstdlib')]
  sys.path[:] = [*dict.fromkeys(standard), f'{standard[1]}/lib-dynload']
  sys.path_importer_cache.clear()
  sys.argv[:] = ['']
  os.environ.clear()


def _keep(confinement: isolation.Confinement, run, channel: int, lifeline: int | None) -> int:
  """In a keeper: starts the candidate, waits until it may end, and sees that it has.

  Args:
    confinement: the layers to lay on.
    run: called in the candidate, with its only descriptor beside the standard ones.
    channel: what the candidate talks through.
    lifeline: what to wait for before the candidate is killed; None to let it end by itself.

  Returns:
    How it ended, as `os.waitstatus_to_exitcode` says it.
  """
  isolation.die_with_parent()
  signal.signal(signal.SIGCHLD, signal.SIG_DFL)
  confinement.enclose()
  alive, held = os.pipe()
  pid = os.fork()
  if pid == 0:
    _become_candidate(confinement, run, channel, alive, held)
  os.close(alive)
  os.close(channel)
  if lifeline is not None:
    os.read(lifeline, 1)
    os.kill(pid, signal.SIGKILL)
  return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _become_candidate(confinement, run, channel: int, alive: int, held: int) -> None:
  """In the candidate: shuts itself in, and runs; never returns."""
  status = 1
  try:
    isolation.die_with_parent()
    os.close(held)
    # Readable means closed: the keeper died before the line above, and nobody will end us.
    if not select.select([alive], [], [], 0)[0]:
      confinement.confine()
      # Output goes nowhere: the standard descriptors are the null device's.
      os.dup2(0, 2)
      os.dup2(channel, 3)
      os.closerange(4, 4096)
      run(3)
      status = 0
  except MemoryError:
    status = isolation.OUT_OF_MEMORY
  finally:
    os._exit(status)


def _try_out(confinement: isolation.Confinement, outside: str) -> list[str]:
  """What of the isolation holds, as tried by a candidate of our own."""
  results, ours = os.pipe()
  keeper = os.fork()
  if keeper == 0:
    status = 1
    try:
      status = _keep(
        confinement,
        lambda channel: os.write(channel, ' '.join(isolation.probe(outside)).encode()),
        ours,
        None,
      )
    except OSError:
      traceback.print_exc()
    finally:
      os._exit(status != 0)
  os.close(ours)
  with open(results) as f:
    held = f.read().split()
  return held if os.waitpid(keeper, 0)[1] == 0 else []


if __name__ == '__main__':
  main(*map(int, sys.argv[1:5]))
