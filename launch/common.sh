# Shared by the launchers, which stand in the root of the repository when they read this.
# shellcheck shell=bash

dry_run='' # set: commands are printed, none is run
is_sure='' # set: nothing is asked

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "error: $*"
  exit 2
}

# Fails unless all these variables are set.
need() {
  local name
  for name in "$@"; do
    [[ -n ${!name:-} ]] || fail "$name is not set; launch/settings.sh has an example of all settings"
  done
}

# Fails unless a setting, if it is set, is of a form: NAME REGEX WORDS
must_be() {
  local LC_ALL=C # elsewhere a-z may hold capitals
  [[ -z ${!1:-} || ${!1} =~ ^($2)$ ]] || fail "$1=${!1} must be $3"
}

# Fails where a setting is not of its form, and brings SCORE_SPOT to 1 or nothing.
check_settings() {
  must_be SCORE_NAME '[a-z]([a-z0-9-]*[a-z0-9])?' 'letters a-z, digits and - between them, a letter first'
  must_be SCORE_SLICES '[1-9][0-9]*' 'a whole number of 1 or above'
  must_be SCORE_POLL_S '[0-9]+([.][0-9]+)?' 'a number of seconds'
  must_be SCORE_SPOT '[01]' '1 for spot capacity, 0 or empty for none'
  [[ ${SCORE_SPOT:-} != 0 ]] || SCORE_SPOT=''
}

# Prints the comment at the top of a script: its manual.
usage() {
  sed -n '2,/^[^#]/{/^#/{s/^# \{0,1\}//;p;};}' "$1"
}

# What a script does with an option of its own; it may define this anew.
option() {
  fail "unknown option $1; arguments of the pipeline stand after --"
}

# Reads the options of a script, and what stands after -- into `rest`.
rest=()
read_options() {
  while [[ $# -gt 0 ]]; do
    case $1 in
      --dry-run) dry_run=1 ;;
      --yes) is_sure=1 ;;
      --)
        shift
        rest=("$@")
        return
        ;;
      *) option "$1" ;;
    esac
    shift
  done
}

# Prints one argument so that a shell reads the same from it.
quote() {
  local plain='^[A-Za-z0-9_./:=,@%+-]+$' mark="'" escaped="'\\''"
  if [[ $1 =~ $plain ]]; then
    printf '%s' "$1"
  else
    printf "'%s'" "${1//$mark/$escaped}"
  fi
}

# Prints a command line so that a shell reads the same from it.
words() {
  local word space=''
  for word in "$@"; do
    printf '%s%s' "$space" "$(quote "$word")"
    space=' '
  done
}

# Runs a command and says which; with --dry-run, only prints it.
run() {
  if [[ -n $dry_run ]]; then
    printf '%s\n' "$(words "$@")"
  else
    say "+ $(words "$@")"
    "$@"
  fi
}

# Fails where the pipeline was given no arguments.
need_arguments() {
  [[ ${#rest[@]} -gt 0 ]] || fail 'the arguments of the pipeline are missing: -- --stage1=CONFIG ...'
}

# Fails where a verb that has no use for them was given some.
refuse_arguments() {
  [[ ${#rest[@]} -eq 0 ]] || fail "$1 takes no arguments of the pipeline: $(words "${rest[@]}")"
}

# Asks before something is lost; the question names it.
confirm() {
  local answer=''
  [[ -z $dry_run && -z $is_sure ]] || return 0
  [[ -t 0 ]] || fail "$1 Say --yes to do it without being asked."
  read -r -p "$1 [y/N] " answer
  [[ $answer == [yY] ]] || fail 'nothing was done'
}

# The last commit, with its history, as one file: what the other machines get.
bundle=build/launch/score_jax.bundle
make_bundle() {
  if [[ -z $dry_run && -n $(git status --porcelain) ]]; then
    say 'note: there are changes that are not committed; they are not sent'
  fi
  run mkdir -p "${bundle%/*}"
  run git bundle create --quiet "$bundle" HEAD
}
