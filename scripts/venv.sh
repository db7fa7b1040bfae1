#!/usr/bin/env bash
# Makes the project's environment: venv.sh FOLDER EXTRAS, e.g. `venv.sh .venv train,hpo`. Needs Python 3.11 or newer.
#
# Installs PyTorch's CPU build first: from where pip is configured to look, otherwise from TORCH_INDEX.

set -euo pipefail

VENV="${1:?folder of the environment}"
EXTRAS="${2:?extras, separated by commas}"
ROOT="$(cd "$(dirname "$0")/.." && pwd)"
TORCH_INDEX="${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}"
TORCH_SPEC="$(grep -E '^torch==' "$ROOT/constraints.txt")"
LOG="$VENV/install.log"

say() { printf '[venv] %s\n' "$*" >&2; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local name
    for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if command -v "$name" >/dev/null && new_enough "$name"; then echo "$name"; return; fi
    done
    say "needs Python 3.11 or newer: set one with 'make PYTHON=/path/to/python3'"
    return 1
}

# quietly COMMAND...: writes the output to the log; its end is printed after a failure.
quietly() { "$@" </dev/null >>"$LOG" 2>&1; }

pip_install() { quietly "$VENV/bin/python" -m pip install --disable-pip-version-check --timeout 60 --retries 3 "$@"; }

torch_installed() {
    local version
    version="$("$VENV/bin/python" -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null)" || return 1
    [ "${version%%+*}" = "${TORCH_SPEC#torch==}" ]
}

install_torch() {
    torch_installed && return
    say "installing $TORCH_SPEC for the CPU (about 200 MB)"
    # Only Linux has a separate CPU build ("+cpu"): on PyTorch's index, or in a local folder.
    if [ "$(uname -s)" != Linux ]; then pip_install "$TORCH_SPEC" || { tail -n 5 "$LOG" >&2; return 1; }; return; fi
    pip_install "$TORCH_SPEC+cpu" && return
    pip_install --timeout 15 --retries 1 --extra-index-url "$TORCH_INDEX" "$TORCH_SPEC+cpu" && return
    tail -n 3 "$LOG" >&2
    say "no CPU build of $TORCH_SPEC where pip is configured to look, nor at $TORCH_INDEX."
    say "set another index (make TORCH_INDEX=URL), or a folder with the wheel (PIP_FIND_LINKS=FOLDER)"
    return 1
}

install_project() {
    local attempt
    for attempt in 1 2 3; do
        pip_install -c "$ROOT/constraints.txt" -e "${ROOT}[$EXTRAS]" && return
        say "attempt $attempt of 3 failed"
        sleep $((attempt * 2))
    done
    return 1
}

if ! [ -x "$VENV/bin/python" ]; then
    python="$(find_python)"
    say "making $VENV with $("$python" --version)"
    "$python" -m venv "$VENV" || { say "cannot make $VENV: on Debian and Ubuntu, install python3-venv"; exit 1; }
fi
: >"$LOG"
install_torch || exit 1
say "installing overnight[$EXTRAS]"
install_project || { tail -n 20 "$LOG" >&2; say "full output: $LOG"; exit 1; }
