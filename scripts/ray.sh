#!/usr/bin/env bash
# Installs Ray into the project's environment: ray.sh PYTHON. Only the end-to-end tests need it.

. "$(dirname "$0")/lib.sh"

PYTHON="${1:?the environment that has the project installed}"
retry timeout 600 "$PYTHON" -m pip install -qq --disable-pip-version-check --retries 5 -c "$ROOT/constraints.txt" ray </dev/null >&2
