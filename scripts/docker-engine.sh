#!/usr/bin/env bash
# A Docker engine for the end-to-end tests, on a machine that may have neither an engine nor a registry.
#
#   docker-engine.sh up      start an engine if none runs, build the base image and the project's image
#   docker-engine.sh image   build the images on a running engine
#   docker-engine.sh down    stop the engine if `up` started it
#
# OVERNIGHT_IMAGE: the project's image (overnight-train:latest). OVERNIGHT_CACHE: the folder for kept files.

. "$(dirname "$0")/lib.sh"

SUITE=bookworm
PLAIN_IMAGE="overnight-debian:$SUITE"    # the result of debootstrap
BASE_IMAGE="overnight-base:$SUITE"       # the same with this machine's pip configuration
IMAGE="${OVERNIGHT_IMAGE:-overnight-train:latest}"

ENGINE="$CACHE/docker"                   # the engine's data, log and process id
PIDFILE="$ENGINE/dockerd.pid"
export DOCKER_BUILDKIT=0                 # the classic builder: Debian's packages do not include BuildKit

answers() { timeout 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

start_engine() {
    if command -v docker >/dev/null && answers; then say "an engine is running already"; return; fi
    apt_install docker.io debootstrap ca-certificates
    [ "$(id -u)" -eq 0 ] || die "no Docker engine is running, and starting one needs root"
    mkdir -p "$ENGINE/data"
    # Unix socket only, no bridge, no firewall rules: jobs have no network, builds use the host's.
    nohup setsid dockerd --host=unix:///var/run/docker.sock --data-root="$ENGINE/data" --pidfile="$ENGINE/engine.pid" \
        --bridge=none --iptables=false --ip-forward=false >"$ENGINE/dockerd.log" 2>&1 </dev/null 9>&- &
    echo $! >"$PIDFILE"
    local waited=0
    until answers; do
        # by process id: until exec, the process has the name of this script
        kill -0 "$(cat "$PIDFILE")" 2>/dev/null || { tail -n 20 "$ENGINE/dockerd.log" >&2; die "the engine ended while starting"; }
        [ "$waited" -lt 120 ] || die "the engine did not answer within 120 s: see $ENGINE/dockerd.log"
        sleep 1; waited=$((waited + 1))
    done
    say "started an engine, $(docker version --format '{{.Server.Version}}')"
}

has_image() { docker image inspect "$1" >/dev/null 2>&1; }

# A Debian root made with debootstrap, which needs no registry. The tar file is kept for other engines.
plain_image() {
    if has_image "$PLAIN_IMAGE"; then return; fi
    local tarball="$CACHE/$SUITE.tar"
    if [ ! -s "$tarball" ]; then
        apt_install debootstrap
        [ "$(id -u)" -eq 0 ] || die "making the base image with debootstrap needs root"
        local root; root="$(mktemp -d "$CACHE/root.XXXXXX")"
        retry bootstrap "$root"
        tar -C "$root" --exclude=./dev/* -cf "$tarball.part" . && mv "$tarball.part" "$tarball"
        rm -rf --one-file-system "$root"
    fi
    docker import "$tarball" "$PLAIN_IMAGE" >/dev/null
    say "imported $PLAIN_IMAGE"
}

bootstrap() {
    rm -rf --one-file-system "${1:?}"/*
    if ! timeout 900 debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$SUITE" "$1" \
            </dev/null >"$CACHE/debootstrap.log" 2>&1; then
        tail -n 5 "$CACHE/debootstrap.log" >&2
        return 1
    fi
}

# pip inside a build needs this machine's CA certificates and local wheels.
base_image() {
    local context folder links=() python; context="$(mktemp -d)"; python="$(command -v python3)"
    mkdir "$context/wheels"
    cp "${PIP_CERT:-${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}}" "$context/ca.crt"
    read -r -a links <<<"${PIP_FIND_LINKS:-$("$python" -m pip config get global.find-links 2>/dev/null || true)}"
    for folder in ${links[@]+"${links[@]}"}; do
        if [ -d "$folder" ]; then find "$folder" -maxdepth 1 -name '*.whl' -exec cp -t "$context/wheels" {} +; fi
    done
    cat >"$context/Dockerfile" <<DOCKERFILE
FROM $PLAIN_IMAGE
COPY ca.crt /etc/ssl/certs/ca-certificates.crt
COPY wheels /opt/wheels
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_FIND_LINKS=/opt/wheels PIP_DEFAULT_TIMEOUT=180
CMD ["/bin/sh"]
DOCKERFILE
    docker build -q --network=host -t "$BASE_IMAGE" "$context" >"$ENGINE/base.log" 2>&1 || { cat "$ENGINE/base.log" >&2; return 1; }
    rm -rf "$context"
    say "built $BASE_IMAGE"
}

project_image() {
    [ -f "$ROOT/Dockerfile" ] || die "no Dockerfile in $ROOT"
    retry timeout 1500 docker build --network=host --build-arg "BASE_IMAGE=$BASE_IMAGE" \
        --build-arg "TORCH_INDEX=${TORCH_INDEX:-}" --build-arg PACKAGES= -t "$IMAGE" "$ROOT" </dev/null >"$ENGINE/build.log" 2>&1 \
        || { tail -n 30 "$ENGINE/build.log" >&2; die "building $IMAGE failed: see $ENGINE/build.log"; }
    say "built $IMAGE"
}

up() {
    mkdir -p "$ENGINE"
    exec 9>"$ENGINE/lock"; flock -w 1800 9 || die "another set-up has been running for half an hour"
    start_engine
    plain_image
    base_image
    project_image
}

case "${1:-}" in
    up) up ;;
    image) base_image; project_image ;;
    down) stop_recorded "$PIDFILE" dockerd 60 ;;
    *) die "usage: $0 up|image|down" ;;
esac
