#!/usr/bin/env bash
# Generates gen/ from proto/: the descriptor set (with comments) and the Python modules. Called by `make gen`.
# `buf generate` is not used because its Python gRPC plugin exists only as a remote one.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"

output="${1:-gen}"
# Beside the output, so that what was generated before is there until the new is whole.
fresh="$(mktemp -d "$(dirname "$output")/.gen-XXXXXX")"
trap 'rm -rf "$fresh"' EXIT
buf build -o "$fresh/descriptors.binpb"
mapfile -t files < <(cd proto && find wayfare -name '*.proto' | sort)
python -m grpc_tools.protoc --descriptor_set_in="$fresh/descriptors.binpb" \
  --python_out="$fresh" --grpc_python_out="$fresh" \
  --mypy_out=quiet:"$fresh" --mypy_grpc_out=quiet,only_async:"$fresh" \
  "${files[@]}" buf/validate/validate.proto
# A method policy without a service has no stub worth keeping.
find "$fresh" -name '*_pb2_grpc.py*' ! -name '*_service_pb2_grpc.py*' -delete
mkdir -p "$output"
cp -r "$fresh/." "$output/"
# What no proto makes any more.
(cd "$output" && find wayfare buf -type f ! -path '*/__pycache__/*') | while read -r file; do
  [ -e "$fresh/$file" ] || rm "$output/$file"
done
