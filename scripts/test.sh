#!/usr/bin/env bash
# Runs the tests; called by `make test`. With arguments, what they name. Without, everything: by two workers
# (WAYFARE_TEST_WORKERS), a file at a time and each with servers of its own, first what needs no whole stack, then what does;
# in the end, one after the other, those that are marked `alone`.
set -uo pipefail
cd "$(dirname "$0")/.."
if [ "$#" -gt 0 ]; then
  exec python -m pytest "$@"
fi
status=0
# By itself xdist begins with the files of most tests, which are rarely those that take longest.
workers=(--numprocesses="${WAYFARE_TEST_WORKERS:-2}" --dist=loadfile --no-loadscope-reorder)
python -m pytest "${workers[@]}" -m "not e2e" || status=1
# By themselves, because a stack takes a fifth of a core as long as it runs.
python -m pytest "${workers[@]}" -m "e2e and not alone" || status=1
python -m pytest -m alone || status=1
exit "$status"
