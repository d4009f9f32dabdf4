#!/usr/bin/env bash
# Makes .venv with everything that requirements.lock names, hashes checked, and puts this checkout on its path.
# Called by `make setup`. Needs Python 3.11 or later with venv and pip; a second run does nothing and needs no network.
set -euo pipefail
cd "$(dirname "$0")/.."
uv_version=0.13.9

fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  fail "Python 3.11 or later is missing ($(python3 --version 2>&1)). Install python3 and python3-venv" \
    "(Debian 12+, Ubuntu 24.04+: apt-get install python3 python3-venv; macOS: brew install python), or name one: PYTHON=/path/to/python make setup"
}

python="$(find_python)"
stamp_file=.venv/.setup-stamp
stamp="$( { cat requirements.lock scripts/setup.sh; sed -n '/^\[project/,/^\[tool\.ruff\]/p' pyproject.toml; pwd; "$python" --version; } | cksum)"
if [ "$(cat "$stamp_file" 2>/dev/null)" = "$stamp" ]; then
  exit 0
fi
"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python has no venv. Debian and Ubuntu: apt-get install python3-venv"

if [ "$(.tools/uv/bin/uv --version 2>/dev/null | cut -d' ' -f2)" != "$uv_version" ]; then
  echo "setup: installing uv $uv_version into .tools/uv"
  "$python" -m venv --clear .tools/uv
  .tools/uv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$uv_version"
fi
export UV_PYTHON_DOWNLOADS=never UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-180}"
# A company's proxy is trusted by the system, not by the certificates that uv brings along.
if [ -z "${SSL_CERT_FILE:-}" ] && [ -s /etc/ssl/certs/ca-certificates.crt ]; then
  export UV_SYSTEM_CERTS=true
fi
# uv does not read pip's settings; a mirror that is set for pip is meant for us too.
mirror="${PIP_INDEX_URL:-$(.tools/uv/bin/python -m pip config get global.index-url 2>/dev/null || true)}"
if [ -n "$mirror" ] && [ -z "${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-}}" ]; then
  export UV_DEFAULT_INDEX="$mirror"
fi

if [ "$(.venv/bin/python -c 'import sys; print(sys.base_prefix)' 2>/dev/null)" != "$("$python" -c 'import sys; print(sys.base_prefix)')" ]; then
  .tools/uv/bin/uv venv --quiet --clear --python "$python" .venv
fi
echo "setup: installing $(grep -c '^[a-zA-Z0-9].*==' requirements.lock) packages from requirements.lock into .venv"
sync=(.tools/uv/bin/uv pip sync --quiet --require-hashes --python .venv/bin/python requirements.lock)
# What is installed or cached needs no network; uv would ask the index all the same.
"${sync[@]}" --offline 2>/dev/null || "${sync[@]}"
.tools/uv/bin/uv pip install --quiet --offline --no-deps --no-build-isolation --python .venv/bin/python -e .
printf '%s\n' "$PWD" "$PWD/gen" "$PWD/clients/python" "$PWD/envoy" "$PWD/envoy" \
  >"$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/wayfare_checkout.pth"
echo "$stamp" >"$stamp_file"
echo "setup: done"
