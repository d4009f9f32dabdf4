#!/usr/bin/env bash
# Checks types, strictly, of everything that is written by hand. Called by `make types`.
set -euo pipefail
cd "$(dirname "$0")/.."
folders=()
for folder in services envoy/wayfare_envoy clients/python/wayfare_client bench tests scripts deploy; do
  # mypy refuses a folder without Python files.
  if [ -n "$(find "$folder" -name '*.py' -print -quit 2>/dev/null)" ]; then folders+=("$folder"); fi
done
mypy "${folders[@]}"
