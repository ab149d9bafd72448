#!/usr/bin/env bash
# Checks the browser page: types with TypeScript, behaviour with `node --test`.  Nothing of it is
# needed to run ListenAI.  TypeScript goes into .venv, at the version below.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

typescript=5.9.3
oldest_node=20
tsc="$venv/typescript-$typescript/node_modules/typescript/bin/tsc"

export PATH="$venv/bin:$PATH"  # with the extra `dev`, a node of our own
if ! command -v node >/dev/null; then
  fail "node is not installed.  Please type:  scripts/test.sh, which installs it into .venv"
fi
if [ "$(node -p 'process.versions.node.split(".")[0]')" -lt "$oldest_node" ]; then
  fail "node $(node --version) is too old; $oldest_node or newer is needed."
fi
if [ ! -f "$tsc" ]; then
  command -v npm >/dev/null || fail "npm is not installed, which belongs to node."
  say "installing TypeScript $typescript into .venv"
  log="$(mktemp)" || exit 1
  if ! npm install --silent --no-audit --no-fund --no-package-lock \
    --prefix "$venv/typescript-$typescript" "typescript@$typescript" >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    fail "npm could not install typescript@$typescript (its last lines are above)." \
      "Check the network, or npm's registry (npm config get registry), and start again."
  fi
  rm -f "$log"
fi

failed=""
node "$tsc" --project web/tsconfig.json || failed="types"
# The reporter of a terminal is for people; this one is as short where all is well.
node --test --test-reporter=dot web/tests/*.test.mjs || failed="$failed${failed:+, }tests"
if [ -n "$failed" ]; then
  printf 'web_check.sh: failed: %s\n' "$failed" >&2
  exit 1
fi
echo "web_check.sh: all passed"
