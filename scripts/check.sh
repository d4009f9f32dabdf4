#!/usr/bin/env bash
# Runs every gate, names the ones that failed, and ends with the tests. Called by `make check`.
# What needs nothing of each other goes on at once; what each printed is shown when it has ended, in a fixed order.
set -uo pipefail
cd "$(dirname "$0")/.."
logs="$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$logs"' EXIT
steps=() failed=()

begin() {
  make "$1" >"$logs/$1" 2>&1 &
  steps+=("$1:$!")
}

begin test-tools
make setup || exit 1
for gate in types web gen-check lint proto-lint imports compose-check; do
  begin "$gate"
done
for step in "${steps[@]}"; do
  wait "${step#*:}" || failed+=("${step%:*}")
  printf '\n==> make %s\n' "${step%:*}"
  cat "$logs/${step%:*}"
done
# The tests come last, so that pytest's own summary closes the run; failed gates are named above it as well as in the exit code.
if [ "${#failed[@]}" -gt 0 ]; then
  printf '\ncheck: failed: %s\n' "${failed[*]}" >&2
fi
printf '\n==> make test\n'
make test || exit 1
[ "${#failed[@]}" -eq 0 ]
