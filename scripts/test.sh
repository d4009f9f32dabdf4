#!/usr/bin/env bash
# Runs the tests; called by `make test`. With arguments, what they name. Without, everything: first on both cores, a file at a
# time and each with servers of its own, those that take longest first; then, one after the other, those marked `alone`.
set -uo pipefail
cd "$(dirname "$0")/.."
if [ "$#" -gt 0 ]; then
  exec python -m pytest "$@"
fi
status=0
# By itself xdist begins with the files of most tests, which are rarely those that take longest.
python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder -m "not alone" || status=1
python -m pytest -m alone || status=1
exit "$status"
