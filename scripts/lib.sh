# shellcheck shell=bash disable=SC2034
# Functions for the scripts that set up the real parts of `make e2e`. Sourced, not run.

set -euo pipefail

# Downloads and builds, outside the checkout; the next run reuses them.
CACHE="${OVERNIGHT_CACHE:-$HOME/.cache/overnight}/e2e"
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
mkdir -p "$CACHE"

say() { printf '[%s] %s\n' "$(basename "$0")" "$*" >&2; }

die() { say "$*"; exit 1; }

# retry COMMAND...: up to three attempts with pauses, for network access.
retry() {
    local attempt
    for attempt in 1 2 3; do
        "$@" && return 0
        if [ "$attempt" -lt 3 ]; then say "attempt $attempt of 3 failed: $1; next attempt in $((attempt * 5)) s"; sleep $((attempt * 5)); fi
    done
    say "failed after 3 attempts: $*"
    return 1
}

# have_packages NAME...: true if dpkg lists all of them as installed.
have_packages() {
    local name
    for name in "$@"; do
        dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || return 1
    done
}

# apt_install NAME...: installs missing packages; needs root and a Debian-like system.
apt_install() {
    command -v apt-get >/dev/null || die "needs the packages $*: install them by hand (no apt-get here)"
    have_packages "$@" && return 0
    [ "$(id -u)" -eq 0 ] || die "needs the packages $*: run 'apt-get install $*' as root, then try again"
    export DEBIAN_FRONTEND=noninteractive
    # Bounded, so that a mirror that hangs does not block the run.
    retry timeout 300 apt-get update -q </dev/null >&2
    retry timeout 1500 apt-get install -q -y --no-install-recommends "$@" </dev/null >&2
}

# alive PIDFILE NAME: true if the recorded process runs and is still that program.
alive() {
    local pid
    [ -s "$1" ] && pid="$(cat "$1")" && [ -r "/proc/$pid/cmdline" ] && grep -qs -- "$2" "/proc/$pid/cmdline"
}

# stop_recorded PIDFILE NAME SECONDS: terminates the recorded process, kills it after SECONDS, removes the file.
stop_recorded() {
    local pid waited=0
    if alive "$1" "$2"; then
        pid="$(cat "$1")"
        kill -TERM "$pid" 2>/dev/null || true
        while alive "$1" "$2" && [ "$waited" -lt "$3" ]; do sleep 1; waited=$((waited + 1)); done
        if alive "$1" "$2"; then say "process $pid did not end in $3 s: killed"; kill -KILL "$pid" 2>/dev/null || true; fi
    fi
    rm -f "$1"
}
