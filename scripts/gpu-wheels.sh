#!/usr/bin/env bash
# Downloads the wheels that benchmarks/gpu.py needs on a machine without a network: gpu-wheels.sh DIR [PYTHON_VERSION]
# Such a machine brings PyTorch for CUDA, triton, tokenizers, safetensors, pyarrow and numpy. Run this where pip works.

. "$(dirname "$0")/lib.sh"

DIR="${1:?the folder for the wheels}"
VERSION="${2:-3.12}"
NAMES=(
    msgspec GitPython gitdb smmap unidiff rich markdown-it-py mdurl pygments tomli-w jinja2 markupsafe
    cmaes psutil pytest pluggy iniconfig packaging hypothesis sortedcontainers
    docker requests urllib3 charset-normalizer openai httpx2 httpcore2 truststore h11 anyio idna certifi sniffio distro jiter
    pydantic pydantic-core annotated-types typing-inspection typing-extensions
)
PYTHON="$ROOT/.venv/bin/python"
[ -x "$PYTHON" ] || PYTHON=python3
platforms=()
for version in 2_28 2_27 2_17; do platforms+=(--platform "manylinux_${version}_x86_64"); done
retry timeout 300 "$PYTHON" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
    --python-version "$VERSION" --implementation cp "${platforms[@]}" --platform manylinux2014_x86_64 --platform any \
    -c "$ROOT/constraints.txt" -d "$DIR" "${NAMES[@]}" </dev/null >&2
say "$(find "$DIR" -name '*.whl' | wc -l) wheels in $DIR, $(du -sh "$DIR" | cut -f1)"
