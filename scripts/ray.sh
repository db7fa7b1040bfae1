#!/usr/bin/env bash
# Ray for the end-to-end tests, in the project's environment: ray.sh PYTHON. It would only make `make test` slower to set up.

. "$(dirname "$0")/lib.sh"

PYTHON="${1:?the environment that has the project installed}"
retry timeout 600 "$PYTHON" -m pip install -qq --disable-pip-version-check --retries 5 -c "$ROOT/constraints.txt" ray </dev/null >&2
