#!/usr/bin/env bash
# Runs the tests; called by `make test`. With arguments, what they name. Without, everything: first what needs no whole stack, on
# both cores, each with servers of its own; then the end-to-end tests, which have the machine to themselves.
set -uo pipefail
cd "$(dirname "$0")/.."
if [ "$#" -gt 0 ]; then
  exec python -m pytest "$@"
fi
status=0
python -m pytest --numprocesses=2 --dist=loadfile -m "not e2e" || status=1
python -m pytest -m e2e || status=1
exit "$status"
