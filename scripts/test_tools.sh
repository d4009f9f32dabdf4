#!/usr/bin/env bash
# Installs what tests drive: grpcurl and h2spec (Go), grpc-js (Node).
# Called by `make test`. A second run does nothing. Where go or node is absent, its tests skip themselves;
# under CI=true it is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
absent=0

missing() {
  echo "test tools: $1 is missing, so $2 will be skipped. $3" >&2
  absent=1
}

install_grpcurl() {
  local minor version=v1.9.3
  minor="$(go env GOVERSION | sed -E 's/^go1\.([0-9]+).*/\1/')"
  # The last release that Go 1.19 (Debian 12) builds.
  if [ "$minor" -lt 21 ]; then version=v1.9.1; fi
  if [ "$(cat .tools/bin/.grpcurl-version 2>/dev/null)" = "$version" ]; then return; fi
  echo "test tools: building grpcurl $version into .tools/bin"
  CGO_ENABLED=0 GOBIN="$PWD/.tools/bin" GOFLAGS=-mod=mod go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@$version"
  echo "$version" >.tools/bin/.grpcurl-version
}

install_h2spec() {
  # The newest that the module proxy knows; from 2.3 on its versions are no Go modules.
  local version=v2.2.1+incompatible
  if [ "$(cat .tools/bin/.h2spec-version 2>/dev/null)" = "$version" ]; then return; fi
  echo "test tools: building h2spec $version into .tools/bin"
  CGO_ENABLED=0 GOBIN="$PWD/.tools/bin" GOFLAGS=-mod=mod go install "github.com/summerwind/h2spec/cmd/h2spec@$version"
  echo "$version" >.tools/bin/.h2spec-version
}

install_node_packages() {
  local folder=tests/e2e/node stamp
  stamp="$(cat "$folder/package.json" "$folder/package-lock.json" | cksum)"
  if [ "$(cat "$folder/node_modules/.stamp" 2>/dev/null)" = "$stamp" ]; then return; fi
  echo "test tools: installing grpc-js into $folder/node_modules"
  if [ -z "${NODE_EXTRA_CA_CERTS:-}" ] && [ -s /etc/ssl/certs/ca-certificates.crt ]; then
    export NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
  fi
  (cd "$folder" && npm ci --silent --no-audit --no-fund)
  echo "$stamp" >"$folder/node_modules/.stamp"
}

mkdir -p .tools/bin
if command -v go >/dev/null; then
  install_grpcurl
  install_h2spec
else
  missing "go (1.19 or later)" "the tests that drive grpcurl and h2spec" "Debian and Ubuntu: apt-get install golang; macOS: brew install go"
fi
if command -v node >/dev/null && command -v npm >/dev/null; then
  install_node_packages
else
  missing "node (18 or later) with npm" "the tests that drive grpc-js" "Debian and Ubuntu: apt-get install nodejs npm; macOS: brew install node"
fi
command -v curl >/dev/null || missing curl "the tests that drive curl" "Debian and Ubuntu: apt-get install curl"
if [ "$absent" = 1 ] && [ "${CI:-}" = true ]; then exit 1; fi
