#!/usr/bin/env bash
# Starts the ListenAI server; options are those of `listenai serve`.  The first start installs
# what is missing into .venv; later ones go straight to the server.  Needs Python >= 3.11.
#
# With --services as the first option, speech recognition, speech synthesis and the language
# model run as processes of their own, on free ports of this machine.  All four end together.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

extras=embedded,mcp,opus
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

if [ "${1:-}" != --services ]; then
  exec "$python" -m listenai serve "$@"
fi
shift

# --- four processes ------------------------------------------------------------------------

folder="$(mktemp -d)"  # what the services print
running=""             # NAME:PID of each, the server last
server=""              # its PID, once it is started

# end PID SECONDS: asks it to end, and waits; after so many seconds it has to.
end() {
  local tenths=$(($2 * 10))
  kill -TERM "$1" 2>/dev/null || return 0
  while kill -0 "$1" 2>/dev/null; do
    [ "$tenths" -gt 0 ] || kill -KILL "$1" 2>/dev/null || true
    tenths=$((tenths - 1))
    sleep 0.1 || true
  done
}

end_all() {
  local one
  # Replies in progress need the services: the server goes first.  It bounds its own end.
  [ -z "$server" ] || end "$server" 3600
  trap '' INT TERM HUP
  for one in $running; do
    kill -TERM "${one#*:}" 2>/dev/null || true
  done
  for one in $running; do
    end "${one#*:}" 5
  done
  rm -rf "$folder"
}

# A second signal reaches the server too: then it does not wait for replies.
stop() {
  if [ -z "$server" ]; then
    trap '' INT TERM HUP
    exit 130
  fi
  kill -TERM "$server" 2>/dev/null || true
}

trap end_all EXIT
trap stop INT TERM HUP

# wait_alive: fails when a process has ended; its name is in `ended` and its status in `status`.
ended="" status=0
wait_alive() {
  local one
  sleep 0.1 || true  # Ctrl-C ends it, too
  for one in $running; do
    if ! kill -0 "${one#*:}" 2>/dev/null; then
      ended="${one%%:*}"
      wait "${one#*:}" || status=$?
      return 1
    fi
  done
}

# wait_listening STAGE: until that service listens; its URL is in `url`.
wait_listening() {
  url=""
  while [ -z "$url" ]; do
    if ! wait_alive; then
      fail "the $ended service did not start (status $status): its own words are above"
    fi
    url="$(sed -n 's/^listening: //p' "$folder/$1")"
  done
}

# Job control puts each into a process group of its own: a terminal's Ctrl-C reaches this script
# alone, and the services live until the server has finished.
set -m
for stage in asr tts llm; do
  "$python" -m listenai "$stage" --host 127.0.0.1 --port 0 </dev/null >"$folder/$stage" &
  running="$running $stage:$!"
done
set +m
wait_listening asr && export ASR_SERVICE_URL="$url"
wait_listening tts && export TTS_SERVICE_URL="$url"
wait_listening llm && export LLM_BASE_URL="$url"
export LLM_ENGINE=openai
# A proxy does not know this machine's services.
export no_proxy="127.0.0.1,${no_proxy:-${NO_PROXY:-}}"

set -m
"$python" -m listenai serve "$@" </dev/null &
server=$!
running="$running server:$server"
set +m

while wait_alive; do :; done
[ "$ended" = server ] || say "the $ended service ended (status $status): everything ends"
[ "$ended" = server ] || [ "$status" -ne 0 ] || status=1
exit "$status"
