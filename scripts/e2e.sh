#!/usr/bin/env bash
# Sets up the real parts, runs the end-to-end tests, and takes down what it started. Called by `make e2e`.
#
#   e2e.sh PYTHON [pytest arguments]

. "$(dirname "$0")/lib.sh"

PYTHON="${1:?the environment that has the project installed}"
shift
cd "$ROOT"

# timed NAME COMMAND...: runs a step and prints its time.
timed() {
    local name="$1" started=$SECONDS
    shift
    "$@" || { say "$name failed after $((SECONDS - started)) s"; return 1; }
    say "$name: $((SECONDS - started)) s"
}

trap 'timed "taking down" scripts/docker-engine.sh down' EXIT
timed "Docker engine and images" scripts/docker-engine.sh up
timed "model server" scripts/vllm-server.sh install
timed "browser" scripts/chromium.sh
timed "Ray" scripts/ray.sh "$PYTHON"
timed "trackers" scripts/trackers.sh "$PYTHON"

# The default options of pytest in this project ignore these tests.
OVERNIGHT_E2E=1 timed "tests" "$PYTHON" -m pytest -o addopts= --strict-markers -p no:cacheprovider -ra --durations=0 \
    --durations-min=1 tests/e2e "$@"
