#!/usr/bin/env bash
# The peers that are not ours, against real processes: the `openai` package over the daemon's Unix socket, and
# llama.cpp's own OpenAI-compatible server behind the gateway's `openai` backend.
#
#   tests/peers/run.sh [TEST_NAME_PART]
#
# Environment: TETHER_TEST_MODEL, a GGUF file (default: the one that `make model` fetches); BIN, the folder of the
# programs (default: target/debug, built first). The Python packages are installed into .cache/peers once, which
# compiles llama.cpp and takes ten minutes or so.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=$PWD/.cache/peers/venv
models=${TETHER_MODELS_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/tether/models}
model=${TETHER_TEST_MODEL:-$models/SmolLM2-135M-Instruct.Q4_1.gguf}
[ -f "$model" ] || { echo "no model at $model; run \`make model\`, or set TETHER_TEST_MODEL" >&2; exit 1; }
if [ -z "${BIN:-}" ]; then
    # The whole workspace, as `make build` does it: a smaller choice has other features, which would build candle again.
    cargo build --quiet --locked --workspace --bins
    BIN=$PWD/target/debug
fi

tests/peers/install.sh >/dev/null

work=$(mktemp -d)
started=()
cleanup() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

free_port() { "$venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
# Waits until a command succeeds; shows the log if its process ends first, or after two minutes.
ready() { # NAME PID COMMAND...
    local name=$1 pid=$2
    shift 2
    for _ in $(seq 1200); do
        "$@" >/dev/null 2>&1 && return 0
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    echo "$name did not start:" >&2
    tail -30 "$work/$name.log" >&2
    return 1
}

upstream=$(free_port) gateway=$(free_port) metrics=$(free_port)
"$venv/bin/python" -m llama_cpp.server --model "$model" --model_alias peer --host 127.0.0.1 --port "$upstream" \
    --n_ctx 2048 >"$work/upstream.log" 2>&1 &
started+=($!)
ready upstream $! curl -sf "http://127.0.0.1:$upstream/v1/models"

"$BIN/tether-cloud" init --dir "$work/gateway" --address "localhost:$gateway" --json >"$work/init.json"
cat >"$work/zoo.toml" <<EOF
metrics = "127.0.0.1:$metrics"
[[zoo]]
name = "peer"
kind = "openai"
base_url = "http://127.0.0.1:$upstream/v1"
model = "peer"
vision = "measured"
EOF
"$venv/bin/python" tests/peers/settings.py "$work" "$gateway" "$model"
"$BIN/tether-cloud" serve --config "$work/gateway/gateway.toml" >"$work/gateway.log" 2>&1 &
started+=($!)
ready gateway $! curl -sf "http://127.0.0.1:$metrics/readyz"

"$BIN/tether" serve --config "$work/config.toml" >"$work/daemon.log" 2>&1 &
started+=($!)
ready daemon $! curl -sf --unix-socket "$work/tether.sock" http://tether/readyz

if ! "$venv/bin/python" tests/peers/test_openai.py "$work/tether.sock" "${1:-}"; then
    for log in daemon gateway; do echo "--- the end of $log.log" >&2; tail -15 "$work/$log.log" >&2; done
    exit 1
fi
