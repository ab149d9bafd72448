#!/usr/bin/env bash
# Installs what the tests need, then runs every check and every test.  Arguments go to pytest.
# Needs Python >= 3.11, and on a machine where something is missing apt with root or sudo.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

section=""
section_start=0
begin() {  # begin TITLE: ends the section before it, and says how long that took
  if [ -n "$section" ]; then
    printf '=== %s: %d s\n' "$section" "$((SECONDS - section_start))"
  fi
  section="$1"
  section_start=$SECONDS
  printf '\n=== %s\n' "$section"
}
trap 'say "test.sh failed in the section: ${section:-start}"' EXIT

# need COMMAND PACKAGE: a program that the tests start.
need() {
  command -v "$1" >/dev/null || apt_install "$2" || fail "the tests need the program $1."
}

begin "Python packages"
engines=vosk,faster-whisper,webrtcvad,pyttsx3,opus,denoising
install_package "embedded,microphone,mcp,models,tracing,$engines,dev"

begin "Models' packages"
install_models

begin "Native packages"
need openssl openssl  # makes throwaway certificates
need flite flite  # speaks the test utterances
if ! problem="$(ten_vad_problem)"; then
  apt_install libc++1 || fail "$problem"
  problem="$(ten_vad_problem)" || fail "$problem"
fi

need espeak-ng espeak-ng  # the system's voice, for pyttsx3
"$python" -c 'import ctypes.util, sys; sys.exit(not ctypes.util.find_library("opus"))' ||
  apt_install libopus0 || fail "the tests need libopus."
need chromium chromium  # the page's tests
need firefox-esr firefox-esr
need WebKitWebDriver webkit2gtk-driver
need Xvfb xvfb
need pulseaudio pulseaudio
need pactl pulseaudio-utils

begin "Form and types"
bash scripts/check.sh

begin "The page's modules"
bash scripts/web_check.sh

begin "The conversation under 50 schedules"
"$python" -m pytest -q -m "not slow" tests/conversation --seeds 50 </dev/null | tail -n 25

# In a process of their own: what browsers and their drivers leave to the garbage collector would
# be held against whichever test it is collected in.
begin "The page in browsers"
"$python" -m pytest tests/browser </dev/null

begin "The firmware"
missing=()
for package in make gcc clang-19 clang-tidy-19 libclang-rt-19-dev cppcheck libcmocka-dev \
  libwebsockets-dev libcap-dev gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf \
  qemu-system-misc; do
  dpkg-query -W "$package" >/dev/null 2>&1 || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}" || fail "the firmware's tests need these."
bash firmware/test/run.sh
bash firmware/test/glue.sh

# Further sections go here.  The last one is pytest: its summary ends the output.

begin "Tests"
if "$python" -m pytest --ignore tests/browser "$@" </dev/null; then
  trap - EXIT
  exit 0
fi

# A few that failed are run once more in a fresh process, loudly: what passes there depends on what
# ran before it, which is a mistake to be found, and not the change that is being tested.
begin "Tests that failed, alone"
failed_tests="$("$python" -c '
import json, pathlib
print(len(json.loads(pathlib.Path(".pytest_cache/v/cache/lastfailed").read_text())))')"
[ "$failed_tests" -le 5 ] || fail "$failed_tests tests failed."
say "$failed_tests tests failed; if they pass now, find out what they depend on."
exec "$python" -m pytest --ignore tests/browser --last-failed --last-failed-no-failures none \
  "$@" </dev/null
