# shellcheck shell=bash disable=SC2034
# Shared by the scripts that set up real parts (Docker engine, model server, browser) for `make e2e`. Sourced, not run.

set -euo pipefail

# Everything that is downloaded or built lies here, outside the checkout, and is used again by the next run.
CACHE="${OVERNIGHT_CACHE:-$HOME/.cache/overnight}/e2e"
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
mkdir -p "$CACHE"

say() { printf '[%s] %s\n' "$(basename "$0")" "$*" >&2; }

die() { say "$*"; exit 1; }

# retry COMMAND...: at most three tries with a pause between them, for whatever goes over a network.
retry() {
    local attempt
    for attempt in 1 2 3; do
        "$@" && return 0
        if [ "$attempt" -lt 3 ]; then say "try $attempt of 3 failed: $1; once more in $((attempt * 5)) s"; sleep $((attempt * 5)); fi
    done
    say "gave up after 3 tries: $*"
    return 1
}

# have_packages NAME...: true when dpkg knows all of them as installed.
have_packages() {
    local name
    for name in "$@"; do
        dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || return 1
    done
}

# apt_install NAME...: installs what is missing; needs root and a Debian-like system.
apt_install() {
    command -v apt-get >/dev/null || die "needs the packages $*: install them by hand, this is not a Debian-like system"
    have_packages "$@" && return 0
    [ "$(id -u)" -eq 0 ] || die "needs the packages $*: run 'apt-get install $*' as root, then try again"
    export DEBIAN_FRONTEND=noninteractive
    # Half an hour for everything is far more than is needed, and a mirror that hangs does not hang the run with it.
    retry timeout 300 apt-get update -q </dev/null >&2
    retry timeout 1500 apt-get install -q -y --no-install-recommends "$@" </dev/null >&2
}

# alive PIDFILE NAME: true when the recorded process runs and is still the program that was started.
alive() {
    local pid
    [ -s "$1" ] && pid="$(cat "$1")" && [ -r "/proc/$pid/cmdline" ] && grep -qs -- "$2" "/proc/$pid/cmdline"
}

# stop_recorded PIDFILE NAME SECONDS: ends the recorded process, asking first; forgets it.
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
