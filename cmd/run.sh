#!/bin/sh
# Runs the agent on this machine for a person to look at: state and socket go
# to a folder of their own, and the way to look is printed first.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" -eq 0 ] || { echo "run as root: sudo make run (the agent loads BPF programs)" >&2; exit 1; }
dir=${MOORING_RUN_DIR:-/run/mooring}
cat <<TEXT
The agent runs until Ctrl-C. In another terminal:
  bin/mooringctl --socket $dir/agent.sock instances --long
  bin/mooringctl --socket $dir/agent.sock doctor
  curl -s http://127.0.0.1:9750/metrics | grep db_server_operation
TEXT
exec bin/mooring-agent --state-dir "$dir/state" --socket "$dir/agent.sock" "$@"
