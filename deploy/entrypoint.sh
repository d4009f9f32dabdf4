#!/bin/sh
# Reads each variable WAYFARE_X_FILE (or DATABASE_URL_FILE) into WAYFARE_X, so that secrets stay in files, then becomes the
# command. The ENTRYPOINT of deploy/Dockerfile.
set -eu
for name in $(env | sed -n 's/^\(\(WAYFARE_\|DATABASE_\)[A-Z0-9_]*\)_FILE=.*/\1/p'); do
  case "$name" in
    WAYFARE_JWKS) continue ;; # WAYFARE_JWKS_FILE is a setting of its own.
  esac
  eval "file=\${${name}_FILE}"
  value="$(cat "$file")"
  export "$name=$value"
  unset "${name}_FILE"
done
exec "$@"
