#!/usr/bin/env bash
# Starts the ListenAI server; options are those of `listenai serve`.  The first start installs
# what is missing into .venv; later ones go straight to the server.  Needs Python >= 3.11.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

extras=embedded,mcp
first_start=no
is_installed "$extras" || first_start=yes
install_package "$extras"

# Only the first start tries apt: offline, every later one would wait for it.
if ! problem="$(ten_vad_problem)"; then
  if [ "$first_start" = no ] || ! apt_install libc++1 || ! problem="$(ten_vad_problem)"; then
    say "$problem"
    say "PocketSphinx detects speech in its place, less well.  To have TEN VAD:" \
      "sudo apt-get install -y libc++1"
  fi
fi

exec "$python" -m listenai serve "$@"
