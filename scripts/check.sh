#!/usr/bin/env bash
# Checks form and types of everything: runs every check, then says which failed.
# scripts/test.sh installs what it needs.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if ! "$python" -c 'import mypy, ruff' 2>/dev/null; then
  fail "ruff and mypy are not installed.  Please type:  scripts/test.sh"
fi

failed=""
check() {  # check NAME COMMAND...
  local name="$1"
  shift
  printf -- '--- %s\n' "$name"
  "$@" || failed="$failed${failed:+, }$name"
}

every_shell_script_parses() {
  local script status=0
  for script in scripts/*.sh; do
    bash -n "$script" || status=1
  done
  return "$status"
}

check "shell syntax" every_shell_script_parses
check "ruff format" "$python" -m ruff format --check --quiet .
check "ruff" "$python" -m ruff check --quiet --output-format concise .
check "mypy" "$python" -m mypy

if [ -n "$failed" ]; then
  printf 'check.sh: failed: %s\n' "$failed" >&2
  exit 1
fi
echo "check.sh: all passed"
