"""The launchers: the commands they print, arguments with spaces through ssh, watching a preemption.

The text files beside this one hold what each verb prints with --dry-run; after a wanted change,
`SCORE_WRITE_GOLDEN=1 python -m pytest tests/launch/test_launch.py` writes them anew. No test may
reach the real gcloud: stand-ins come first on the path, and fail where they are not expected.
"""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest
from makers import ROOT

GOLDEN = ROOT / 'tests' / 'launch'
SCRIPTS = ('tpu.sh', 'xpk.sh', 'local_two.sh')
SETTINGS = {
  'SCORE_PROJECT': 'my-project',
  'SCORE_ZONE': 'us-east5-b',
  'SCORE_NAME': 'score',
  'SCORE_TYPE': 'v6e-16',
  'SCORE_SPOT': '1',
  'SCORE_CLUSTER': 'cluster',
  'SCORE_IMAGE': 'us-docker.pkg.dev/my-project/score/score_jax',
  'SCORE_SLICES': '2',
}
# What a shell could take apart, and systemd: spaces, quotes, variables, globs, a home, an end.
ARGUMENTS = [
  '--stage1=configs/stage1_math.py',
  '--stage2=configs/stage2_math.py',
  '--workdir=gs://my-bucket/my runs',
  "--config.chat.options={'name': 'it''s $HOME; \"100%\" & *'}",
  '--config.data.cache=~\\x',
]
TPU_VERBS = 'create queue install start resume watch status logs stop delete'.split()
XPK_VERBS = 'cluster image start status logs delete delete-cluster'.split()
CASES = [('tpu', verb) for verb in TPU_VERBS] + [('xpk', verb) for verb in XPK_VERBS]
CASES += [('local_two', '')]

# A stand-in for a program: writes its arguments down, then answers as `answer.sh` says.
STAND_IN = r"""#!/bin/bash
folder=$(dirname "$0")
printf '%s\0' "${0##*/}" "$@" $'\n' >>"$folder/calls"
[[ -e $folder/answer.sh ]] || { echo "must not be called: $0 $*" >&2 && exit 1; }
source "$folder/answer.sh"
"""


class Programs:
  """Stand-ins for gcloud and others, first on the path."""

  def __init__(self, folder):
    self.folder = folder
    for name in ('gcloud', 'xpk', 'kubectl', 'docker', 'git', 'sudo', 'systemctl', 'curl'):
      (folder / name).write_text(STAND_IN)
      (folder / name).chmod(0o755)

  def answer(self, text):
    (self.folder / 'answer.sh').write_text(text)

  def calls(self):
    path = self.folder / 'calls'
    lines = path.read_text().split('\0\n\0')[:-1] if path.exists() else []
    return [line.split('\0') for line in lines]

  def launch(self, script, *arguments, **settings):
    environment = {key: value for key, value in os.environ.items() if not key.startswith('SCORE_')}
    environment |= SETTINGS | {'PATH': f'{self.folder}:{os.environ["PATH"]}'} | settings
    return subprocess.run(
      [ROOT / 'launch' / script, *filter(None, arguments)],
      env={key: value for key, value in environment.items() if value},
      capture_output=True,
      stdin=subprocess.DEVNULL,
      text=True,
      timeout=120,
    )


@pytest.fixture
def programs(tmp_path):
  return Programs(tmp_path)


def needs_arguments(verb):
  return verb in ('start', 'resume', 'watch', '')


# What is printed.


@pytest.mark.parametrize(('script', 'verb'), CASES)
def test_dry_run(script, verb, programs):
  arguments = ['--', *ARGUMENTS] if needs_arguments(verb) else []
  done = programs.launch(f'{script}.sh', verb, '--dry-run', *arguments)
  assert done.returncode == 0, done.stderr
  assert not programs.calls(), 'a dry run ran something'
  path = GOLDEN / ('_'.join(filter(None, (script, verb))) + '.txt')
  if os.environ.get('SCORE_WRITE_GOLDEN'):
    path.write_text(done.stdout, encoding='utf-8')
  assert done.stdout == path.read_text(encoding='utf-8')
  for line in done.stdout.splitlines():
    assert shlex.split(line)[0] in ('gcloud', 'xpk', 'kubectl', 'docker', 'git', 'mkdir', 'env')


def test_every_golden_file_is_of_a_verb():
  names = {'_'.join(filter(None, case)) + '.txt' for case in CASES}
  assert {path.name for path in GOLDEN.glob('*.txt')} == names


@pytest.mark.parametrize('script', SCRIPTS)
def test_the_manual_names_every_verb(script, programs):
  done = programs.launch(script, 'help')
  assert done.returncode == 0 and script in done.stdout.splitlines()[0]
  verbs = {'tpu.sh': TPU_VERBS, 'xpk.sh': XPK_VERBS}.get(script, [])
  for verb in verbs:
    assert f'\n  {verb} ' in done.stdout, verb
  assert '#' not in done.stdout and 'set -e' not in done.stdout


def test_scripts_are_clean():
  program = shutil.which(
    'shellcheck', path=f'{pathlib.Path(sys.executable).parent}:{os.environ["PATH"]}'
  )
  if program is None:
    pytest.skip("there is no shellcheck; it comes with pip install '.[test]'")
  files = sorted((ROOT / 'launch').glob('*.sh'))
  assert len(files) == 5
  done = subprocess.run([program, '-x', *files], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout


# Settings.


@pytest.mark.parametrize(
  ('kind', 'version'),
  [
    ('v6e-16', 'v2-alpha-tpuv6e'),
    ('v5p-128', 'v2-alpha-tpuv5'),
    ('v5litepod-8', 'v2-alpha-tpuv5-lite'),
    ('v4-32', 'tpu-ubuntu2204-base'),
  ],
)
def test_the_runtime_goes_by_the_type(kind, version, programs):
  for spot in ('', '0'):
    done = programs.launch('tpu.sh', 'create', '--dry-run', SCORE_TYPE=kind, SCORE_SPOT=spot)
    assert f' --version={version} ' in done.stdout and '--spot' not in done.stdout
  done = programs.launch('tpu.sh', 'queue', '--dry-run', SCORE_TYPE=kind, SCORE_RUNTIME='mine')
  assert ' --runtime-version=mine ' in done.stdout


def test_the_setup_comes_before_an_installation_counts(programs):
  done = programs.launch('tpu.sh', 'install', '--dry-run', SCORE_SETUP="a 'b c' || d; e")
  command = next(w for w in shlex.split(done.stdout.splitlines()[-1]) if w.startswith('--command='))
  assert command.endswith(" && (a 'b c' || d; e) && touch .venv/installed")


# Arguments, through a local shell, a remote one and systemd.

REMOTE = """
for argument; do
  [[ $argument != --command=* ]] || command=${argument#--command=}
done
case ${0##*/} in
  gcloud) bash -c "$command" ;;
  systemctl) echo %s ;;
  curl) echo 3 ;;
esac
"""


def test_arguments_survive(programs):
  """The remote shell is a real one; gcloud, sudo and systemd are stand-ins."""
  programs.answer(REMOTE % 'inactive')
  done = programs.launch('tpu.sh', 'start', '--', *ARGUMENTS, HOME='/home/me')
  assert done.returncode == 0, done.stderr
  [started] = [call for call in programs.calls() if call[:2] == ['sudo', 'systemd-run']]
  assert {'--working-directory=/home/me/score_jax', '--setenv=SCORE_PROCESS_ID=3'} < {*started}
  at = started.index('/home/me/score_jax/.venv/bin/python')
  assert started[at + 1 : at + 4] == ['-m', 'score_jax.pipeline', '--distributed']
  assert [word.replace('$$', '$') for word in started[at + 4 :]] == ARGUMENTS
  assert not any('$' in word.replace('$$', '') for word in started)
  # XPK puts the command into a script for bash.
  done = programs.launch('xpk.sh', 'start', '--', *ARGUMENTS)
  assert done.returncode == 0, done.stderr
  [command] = [word for word in programs.calls()[-1] if word.startswith('--command=')]
  assert command.startswith('--command=exec python ')
  command = command.replace('--command=exec python', r"printf '%s\0'")
  shown = subprocess.run(['bash', '-c', command], capture_output=True, text=True, check=True)
  assert shown.stdout.split('\0')[3:-1] == ARGUMENTS


def test_a_worker_without_a_number_is_not_started(programs):
  """Any other text in its place, such as a page of an error, would be no worker's."""
  programs.answer((REMOTE % 'inactive').replace('echo 3', 'exit 22'))
  done = programs.launch('tpu.sh', 'start', '--', *ARGUMENTS)
  assert done.returncode == 22
  [asked] = [call for call in programs.calls() if call[0] == 'curl']
  assert '--fail' in asked
  assert not any('systemd-run' in call for call in programs.calls() if call[0] == 'sudo')


def test_the_worker_of_the_logs(programs):
  for option, worker in ((None, '0'), ('--worker=3', '3'), ('--worker=all', 'all')):
    done = programs.launch('tpu.sh', 'logs', '--dry-run', option)
    assert done.returncode == 0 and f' --worker={worker} ' in done.stdout


def test_a_worker_that_runs_is_left_alone(programs):
  programs.answer(REMOTE % 'active')
  done = programs.launch('tpu.sh', 'start', '--', *ARGUMENTS)
  assert done.returncode == 0 and 'score_jax is active already' in done.stdout
  assert [call[0] for call in programs.calls()] == ['gcloud', 'systemctl']


# Preemption.

# A stand-in for a cloud: each look at something takes the next line of a file.
CLOUD = """
act() {
  local line
  line=$(head -n 1 "$folder/$1.story")
  sed -i 1d "$folder/$1.story"
  [[ $line != error ]] || { echo 'ERROR: (gcloud) the network is down' >&2 && exit 1; }
  printf '%b\\n' "$line"
}
case "$*" in
  *queued-resources' 'list*) act queued ;;
  *tpu-vm' 'list*) act vm ;;
  *SubState*) act service ;;
  *'installed || echo'*) act installed ;;
esac
"""


def run_verb(programs, *verb, **story):
  """Runs a verb against that cloud; returns what was done, without looks, and the process."""
  programs.answer(CLOUD)
  for name, lines in story.items():
    (programs.folder / f'{name}.story').write_text(''.join(f'{line}\n' for line in lines))
  arguments = ['--', *ARGUMENTS] if needs_arguments(verb[0]) else []
  done = programs.launch('tpu.sh', *verb, *arguments, SCORE_POLL_S='0.01')
  deeds = []
  for call in programs.calls():
    if call[0] == 'gcloud' and call[4] in ('create', 'delete'):
      deeds.append(f'{call[4]} {call[3]}')
    deeds += ['install'] * any('touch .venv/installed' in word for word in call)
    deeds += ['start'] * any('systemd-run' in word for word in call)
  for name in story:
    assert (programs.folder / f'{name}.story').read_text() == '', f'{name}: the story went on'
  return deeds, done


def test_watching_a_preemption(programs):
  deeds, done = run_verb(
    programs,
    'watch',
    # Nothing there; waits; runs; the network fails; preempted; again in the queue; done.
    queued=['', 'WAITING_FOR_RESOURCES', 'ACTIVE', 'ACTIVE', 'error']
    + ['ACTIVE', 'SUSPENDING', 'SUSPENDED', 'PROVISIONING', 'ACTIVE', 'ACTIVE', 'ACTIVE'],
    vm=['', '', 'READY', 'READY', 'PREEMPTED', '', '', 'CREATING', 'READY', 'READY', 'READY'],
    installed=[r'missing\nmissing', '', 'missing', '', ''],
    service=[r'state=dead\nstate=dead', r'state=running\nstate=running']
    + [r'state=dead\nstate=dead', r'state=exited\nstate=running', r'state=exited\nstate=exited'],
  )
  assert done.returncode == 0, done.stderr
  assert 'trying again' in done.stderr and 'score has finished' in done.stderr
  create, delete = 'create queued-resources', 'delete queued-resources'
  again = [delete, create]
  # The VM is preempted before the queued resource knows; then the new one is, too.
  assert deeds == [create, 'install', 'start', *again, *again, 'install', 'start']


def test_watching_gives_up_on_a_run_that_fails(programs):
  service = [r'state=running\nstate=failed']
  deeds, done = run_verb(
    programs, 'watch', queued=['ACTIVE'], vm=['READY'], installed=[''], service=service
  )
  assert done.returncode == 2 and 'failed ten times' in done.stderr and deeds == []


def test_watching_makes_a_plain_vm_again(programs):
  vm, service = ['PREEMPTED', 'READY'], ['state=exited']
  deeds, done = run_verb(programs, 'watch', queued=['', ''], vm=vm, installed=[''], service=service)
  assert done.returncode == 0 and deeds == ['delete tpu-vm', 'create tpu-vm']


def test_resuming_starts_what_is_not_running(programs):
  deeds, done = run_verb(programs, 'resume', queued=['ACTIVE'], vm=['READY'], installed=[''])
  assert done.returncode == 0 and deeds == ['start']


# Nothing is lost without a word.


@pytest.mark.parametrize(
  ('queued', 'vm', 'deed'),
  [('ACTIVE', 'READY', 'delete queued-resources'), ('', 'READY', 'delete tpu-vm'), ('', '', None)],
)
def test_delete_asks(queued, vm, deed, programs):
  deeds, done = run_verb(programs, 'delete', queued=[queued], vm=[vm])
  assert deeds == [] and done.returncode == (2 if deed else 0)
  assert ('score' in done.stderr) and ('Say --yes' in done.stderr) == bool(deed)
  deeds, done = run_verb(programs, 'delete', '--yes', queued=[queued], vm=[vm])
  assert deeds == ([deed] if deed else []) and done.returncode == 0


@pytest.mark.parametrize('verb', ['delete', 'delete-cluster'])
def test_xpk_asks(verb, programs):
  done = programs.launch('xpk.sh', verb)
  assert done.returncode == 2 and not programs.calls()
  assert ('score' if verb == 'delete' else 'cluster') in done.stderr and 'Say --yes' in done.stderr
