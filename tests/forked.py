"""Programs in processes of their own that start at once: forks of one that has imported much.

Importing jax and the package takes seconds of a processor. Run as a program, this file does so
once, and forks for each program that it is asked to start; imported, it is what asks.
"""

import contextlib
import gc
import importlib
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import warnings

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Program:
  """A program that a `Server` started."""

  def __init__(self, server, pid, output):
    self._server, self._output, self._pid = server, output, pid
    self.returncode = None

  def poll(self):
    """Its exit status, minus the signal that ended it; None while it runs."""
    if self.returncode is None:
      self.returncode = self._server.ask({'pid': self._pid})
    return self.returncode

  def send_signal(self, number):
    """Sends it a signal if it still runs."""
    if self.poll() is None:
      os.kill(self._pid, number)

  def communicate(self, timeout_s=240):
    """Waits for its end; returns what it printed, standard output and error together."""
    deadline_s = time.monotonic() + timeout_s
    while self.poll() is None:
      assert time.monotonic() < deadline_s, self._output.read_text(errors='replace')
      time.sleep(0.01)
    return self._output.read_text(errors='replace')


class Server:
  """The process that forks, with a CPU for its devices."""

  def __init__(self, *modules, **env):
    """Starts it.

    Args:
      modules: what all programs will have imported already; none of it may define flags.
      env: variables of the environment of all programs.
    """
    self._folder = tempfile.TemporaryDirectory()
    self._num_started = 0
    self._env = env
    self._process = subprocess.Popen(
      [sys.executable, __file__, *modules],
      cwd=ROOT,
      env=os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)},
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def ask(self, question):
    """Sends one question and returns the answer."""
    print(json.dumps(question), file=self._process.stdin, flush=True)
    return json.loads(self._process.stdout.readline())

  def start(self, *arguments, devices=1, prelude='', **env):
    """Starts what `python -m` would start with these arguments.

    Args:
      arguments: a module and its command line.
      devices: CPU devices that it sees.
      prelude: Python that it runs first.
      env: variables of its environment besides those of this process and of all programs.

    Returns:
      The Program.
    """
    self._num_started += 1
    output = pathlib.Path(self._folder.name, str(self._num_started))
    question = {'arguments': [*map(str, arguments)], 'devices': devices, 'prelude': prelude}
    pid = self.ask(question | {'env': os.environ | self._env | env, 'output': str(output)})
    return Program(self, pid, output)

  def close(self):
    """Ends it, and with it every program that still runs."""
    self._process.communicate()
    self._folder.cleanup()


def run_command_lines(module, lines):
  """Runs a program once for each list of arguments, all in the time of one import of jax.

  Returns:
    (exit status, what it printed) of each.
  """
  server = Server('score_jax.planning.shapes', 'score_jax.setup.run')
  found = []
  try:
    for line in lines:
      program = server.start(module, *line)
      printed = program.communicate()
      found.append((program.returncode, printed))
  finally:
    server.close()
  return found


def _run(question):
  output = os.open(question['output'], os.O_WRONLY | os.O_CREAT)
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
  os.dup2(output, 1)
  os.dup2(output, 2)
  os.environ.update(question['env'])
  if jax := sys.modules.get('jax'):  # which has read the variables of the server
    jax.config.update('jax_num_cpu_devices', question['devices'])
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  sys.argv = question['arguments']
  exec(question['prelude'], {})
  runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)


def main():
  """Answers questions until there are no more."""
  warnings.filterwarnings('ignore', message=r'os.fork\(\) was called')
  for name in sys.argv[1:]:
    importlib.import_module(name)
  gc.freeze()  # what is imported is not looked through again by each fork
  answers = os.fdopen(os.dup(1), 'w')
  running = set()
  for line in sys.stdin:
    question = json.loads(line)
    if 'pid' in question:
      pid, status = os.waitpid(question['pid'], os.WNOHANG)
      running.discard(pid)
      answer = os.waitstatus_to_exitcode(status) if pid else None
    else:
      answer = os.fork()
      if answer == 0:
        return _run(question)
      running.add(answer)
    print(json.dumps(answer), file=answers, flush=True)
  for pid in running:
    with contextlib.suppress(ProcessLookupError):
      os.kill(pid, signal.SIGKILL)


if __name__ == '__main__':
  main()
