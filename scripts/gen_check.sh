#!/usr/bin/env bash
# Fails when gen/ is not what scripts/gen.sh makes of proto/. Called by `make gen-check`.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh="$(mktemp -d)"
trap 'rm -rf "$fresh"' EXIT
bash scripts/gen.sh "$fresh"
if ! diff --recursive --brief --exclude=__pycache__ gen "$fresh"; then
  echo "gen-check: gen/ is out of date; run make gen and commit what it changes" >&2
  exit 1
fi
echo "gen-check: gen/ is current"
