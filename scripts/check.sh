#!/usr/bin/env bash
# Runs every gate, names the ones that failed, and ends with the tests. Called by `make check`.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=()
for gate in proto-lint gen-check lint types imports compose-check; do
  printf '\n==> make %s\n' "$gate"
  make "$gate" || failed+=("$gate")
done
# The tests come last, so that pytest's own summary closes the run; failed gates are named above it as well as in the exit code.
if [ "${#failed[@]}" -gt 0 ]; then
  printf '\ncheck: failed: %s\n' "${failed[*]}" >&2
fi
printf '\n==> make test\n'
make test || exit 1
[ "${#failed[@]}" -eq 0 ]
