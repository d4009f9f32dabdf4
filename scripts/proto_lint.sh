#!/usr/bin/env bash
# Checks the protos' style and format, and that no change breaks a client of the main branch. Called by `make proto-lint`.
set -euo pipefail
cd "$(dirname "$0")/.."
buf lint
buf format --diff --exit-code --path proto/wayfare >/dev/null || {
  echo "proto-lint: make fmt repairs the protos' format" >&2
  exit 1
}
echo "proto-lint: style and format are right"

# On the main branch itself the last commit before HEAD is the one that clients were built against.
base=""
for candidate in origin/main main; do
  if git rev-parse --quiet --verify "$candidate^{commit}" >/dev/null 2>&1; then
    base="$candidate"
    break
  fi
done
if [ -n "$base" ] && [ "$(git rev-parse "$base")" = "$(git rev-parse HEAD)" ] && git diff --quiet HEAD -- proto; then
  base="$(git rev-parse --quiet --verify "HEAD~1^{commit}" 2>/dev/null || true)"
fi
if [ -z "$base" ] || ! git cat-file -e "$base:proto" 2>/dev/null; then
  echo "proto-lint: breaking changes not checked: there is no earlier main commit with protos to compare with"
  exit 0
fi
earlier="$(mktemp -d)"
trap 'rm -rf "$earlier"' EXIT
git archive "$base" proto buf.yaml | tar -x -C "$earlier"
buf breaking --against "$earlier"
echo "proto-lint: nothing breaks clients of $(git rev-parse --short "$base")"
