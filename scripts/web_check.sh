#!/usr/bin/env bash
# Checks the browser page: types with TypeScript, behaviour with `node --test`.  Nothing of it is
# needed to run ListenAI.  TypeScript, and axe-core for tests/browser, go into .venv, at the
# versions below.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

typescript=5.9.3
axe_core=4.14.1
oldest_node=20
tsc="$venv/typescript-$typescript/node_modules/typescript/bin/tsc"

# need_package NAME VERSION: a package of npm, in a directory of its own in .venv.
need_package() {
  local place="$venv/$1-$2" log
  [ -f "$place/node_modules/$1/package.json" ] && return 0
  command -v npm >/dev/null || fail "npm is not installed, which belongs to node."
  say "installing $1 $2 into .venv"
  log="$(mktemp)" || exit 1
  if ! npm install --silent --no-audit --no-fund --no-package-lock \
    --prefix "$place" "$1@$2" >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    fail "npm could not install $1@$2 (its last lines are above)." \
      "Check the network, or npm's registry (npm config get registry), and start again."
  fi
  rm -f "$log"
}

export PATH="$venv/bin:$PATH"  # with the extra `dev`, a node of our own
if ! command -v node >/dev/null; then
  fail "node is not installed.  Please type:  scripts/test.sh, which installs it into .venv"
fi
if [ "$(node -p 'process.versions.node.split(".")[0]')" -lt "$oldest_node" ]; then
  fail "node $(node --version) is too old; $oldest_node or newer is needed."
fi
need_package typescript "$typescript"
need_package axe-core "$axe_core"

failed=""
node "$tsc" --project web/tsconfig.json || failed="types"
# The reporter of a terminal is for people; this one is as short where all is well.
node --test --test-reporter=dot web/tests/*.test.mjs || failed="$failed${failed:+, }tests"
if [ -n "$failed" ]; then
  printf 'web_check.sh: failed: %s\n' "$failed" >&2
  exit 1
fi
echo "web_check.sh: all passed"
