# Sourced by the other scripts: finds Python, makes .venv, installs the package and what it
# needs from the system.  Written for the bash 3.2 of macOS; problems are told in plain words.
#
# Sourcing it changes to the top of the checkout and sets `root`, `venv` and `python`.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root" || exit 1
venv="$root/.venv"
python="$venv/bin/python"
stamp="$venv/installed"  # line 1: fingerprint; then one line for each set of extras installed

say() { printf 'listenai: %s\n' "$*" >&2; }
fail() {
  say "$@"
  exit 1
}

# --- the system's packages ---------------------------------------------------------------

# Prints what runs a command as root, and fails where nothing does without a question.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    echo env
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    echo "sudo -n env"
  else
    return 1
  fi
}

# apt_install PACKAGE...: installs with apt; where it may not, says what to type, and fails.
apt_install() {
  local root_command log
  if ! command -v apt-get >/dev/null; then
    say "no apt-get here.  Please install what your system calls: $*"
    return 1
  fi
  if ! root_command="$(as_root)"; then
    say "installing needs root.  Please type:  sudo apt-get update && sudo apt-get install -y $*"
    return 1
  fi
  say "installing with apt: $*"
  log="$(mktemp)" || return 1
  # The package lists of a fresh machine are empty or old; elsewhere they cost time to renew.
  if apt_quietly "$root_command" install -y --no-install-recommends "$@" >"$log" 2>&1 ||
    { apt_quietly "$root_command" update >>"$log" 2>&1 &&
      apt_quietly "$root_command" install -y --no-install-recommends "$@" >>"$log" 2>&1; }; then
    rm -f "$log"
    return 0
  fi
  tail -n 20 "$log" >&2
  rm -f "$log"
  say "apt could not install: $*  (its last lines are above)"
  return 1
}

apt_quietly() {  # apt_quietly ROOT_COMMAND APT_ARGUMENT...
  local root_command="$1"
  shift
  # shellcheck disable=SC2086  # "sudo -n env" is three words
  $root_command DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 "$@" </dev/null
}

# --- Python and .venv --------------------------------------------------------------------

# Prints the Python to use.  3.13 and 3.11 go first: PocketSphinx comes ready-built for these,
# and must be compiled for the others.
find_python() {
  local candidate
  for candidate in ${LISTENAI_PYTHON:+"$LISTENAI_PYTHON"} \
    python3.13 python3.11 python3 python3.12 python3.14 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return 0
    fi
    if [ "$candidate" = "${LISTENAI_PYTHON:-}" ]; then
      say "LISTENAI_PYTHON=$candidate is not a working Python >= 3.11; correct or unset it."
      return 1
    fi
  done
  say "Python 3.11 or newer is needed; found: $(python3 --version 2>/dev/null || echo none)."
  say "Debian 12, Ubuntu 24.04 or newer:  sudo apt-get install -y python3 python3-venv"
  say "macOS:  brew install python@3.13"
  say "If it is somewhere else, name it:  LISTENAI_PYTHON=/path/to/python3 $0"
  return 1
}

venv_works() {
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
    "$python" -m pip --version >/dev/null 2>&1
}

make_venv() {
  local base version
  base="$(find_python)" || exit 1
  if ! "$base" -c 'import ensurepip, venv' 2>/dev/null; then
    version="$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    say "$base cannot make virtual environments yet."
    apt_install "python$version-venv" || exit 1
  fi
  # --clear: what is there is broken, half made, or belongs to a Python that has gone.
  "$base" -m venv --clear "$venv" ||
    fail "could not make $venv (the lines above say why).  Is the disk full or read-only?"
}

# --- the package -------------------------------------------------------------------------

# What an installation depends on; the path, because an editable install names it.
fingerprint() {
  { "$python" --version && printf '%s\n' "$root" && cat pyproject.toml requirements.lock; } | cksum
}

# is_installed EXTRAS: the same extras from the same pins, by the same Python.
is_installed() {
  [ -x "$python" ] && [ -f "$stamp" ] &&
    [ "$(head -n 1 "$stamp")" = "$(fingerprint 2>/dev/null)" ] && grep -qxF "$1" "$stamp"
}

remember_installed() {
  local now
  now="$(fingerprint)"
  [ -f "$stamp" ] && [ "$(head -n 1 "$stamp")" = "$now" ] || printf '%s\n' "$now" >"$stamp"
  printf '%s\n' "$1" >>"$stamp"
}

pip_install() {
  "$python" -m pip install --quiet --disable-pip-version-check --no-input \
    -c requirements.lock "$@" </dev/null
}

# install_package EXTRAS: the package, editable (a `git pull` is enough to update), with pins.
install_package() {
  local log
  is_installed "$1" && return 0
  venv_works || make_venv
  say "installing the Python packages (the first time this takes about a minute)"
  log="$(mktemp)" || exit 1
  if ! pip_install --only-binary :all: -e ".[$1]" >"$log" 2>&1; then
    if ! grep -qE 'from versions: none|connection broken|Network is unreachable' "$log"; then
      say "not every package comes ready-built for $("$python" --version); compiling the rest"
      need_compiler
      pip_install -e ".[$1]" >"$log" 2>&1 && : >"$log"
    fi
    if [ -s "$log" ]; then
      tail -n 20 "$log" >&2
      rm -f "$log"
      fail "pip could not install the packages (its last lines are above)." \
        "Check the network, or the proxy (https_proxy), and start again."
    fi
  fi
  rm -f "$log"
  remember_installed "$1"
}

# The packages of the real models, for the CPU: torch first, or pip takes another build.
# About two minutes and 2.4 GB.
install_models() {
  is_installed models-for-cpu && return 0
  say "installing PyTorch and the models' packages (the first time this takes minutes)"
  pip_install torch==2.13.0 &&
    pip_install -e ".[funasr,voxcpm,sherpa,embedded,dev]" &&
    pip_install --no-deps "voxcpm>=2.0.3,<3" ||
    fail "pip could not install the models' packages (its last lines are above)."
  remember_installed models-for-cpu
}

need_compiler() {
  local header version
  header="$("$python" -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")')"
  if ! command -v cc >/dev/null || ! command -v c++ >/dev/null || [ ! -f "$header" ]; then
    version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    if [ "$(uname -s)" = Darwin ]; then
      fail "a C compiler is needed.  Please type:  xcode-select --install"
    fi
    apt_install gcc g++ libc6-dev "python$version-dev" || exit 1
  fi
}

# --- TEN VAD's C++ library ---------------------------------------------------------------

# Prints why TEN VAD's library does not load, and fails; nothing where it loads, or where none is
# made for this machine.  Asked by loading: a package's name says nothing about another system.
ten_vad_problem() {
  "$python" -c '
import ctypes, importlib.util, pathlib, platform, sys
if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
    sys.exit()
package = pathlib.Path(importlib.util.find_spec("ten_vad").origin).parent
try:
    ctypes.CDLL(str(package / "lib/Linux/x64/libten_vad.so"))
except OSError as error:
    sys.exit(f"TEN VAD (speech detection) cannot be loaded: {error}")
' 2>&1
}
