#!/usr/bin/env bash
# Proves the GPU path in one command, in at most twelve minutes: gpu-check.sh OUT [WHEELS] [OPTIONS of benchmarks.gpu]
# WHEELS is a folder made by gpu-wheels.sh, for a machine without a network. Results: OUT/gpu.json and OUT/gpu.md.

set -euo pipefail

OUT="${1:?the folder for the results}"
WHEELS="${2:-}"
shift $(($# < 2 ? $# : 2))
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON="${PYTHON:-python3}"
if [ -n "$WHEELS" ]; then
    SITE="$(mktemp -d)"
    trap 'rm -rf "$SITE"' EXIT
    "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$SITE" "$WHEELS"/*.whl
    export PYTHONPATH="$PWD:$SITE${PYTHONPATH:+:$PYTHONPATH}"
fi
"$PYTHON" -m benchmarks.gpu --out "$OUT" "$@"
