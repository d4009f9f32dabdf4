#!/usr/bin/env bash
# Generates gen/ from proto/: the descriptor set (with comments) and the Python modules. Called by `make gen`.
# `buf generate` is not used because its Python gRPC plugin exists only as a remote one.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"

output="${1:-gen}"
mkdir -p "$output"
# A contract that does not compile leaves what was generated before.
buf build -o "$output/descriptors.binpb"
rm -rf "${output:?}/wayfare" "${output:?}/buf"
mapfile -t files < <(cd proto && find wayfare -name '*.proto' | sort)
python -m grpc_tools.protoc --descriptor_set_in="$output/descriptors.binpb" \
  --python_out="$output" --grpc_python_out="$output" \
  --mypy_out=quiet:"$output" --mypy_grpc_out=quiet,only_async:"$output" \
  "${files[@]}" buf/validate/validate.proto
# A method policy without a service has no stub worth keeping.
find "$output" -name '*_pb2_grpc.py*' ! -name '*_service_pb2_grpc.py*' -delete
