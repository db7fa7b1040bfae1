#!/usr/bin/env bash
# Installs wandb, trackio, and what MLflow's server needs beyond mlflow-skinny: trackers.sh PYTHON. For `make e2e` alone.
#
# The whole package mlflow would replace newer versions of other packages in this environment.

. "$(dirname "$0")/lib.sh"

PYTHON="${1:?the environment that has the project installed}"
retry timeout 600 "$PYTHON" -m pip install -qq --disable-pip-version-check --retries 5 -c "$ROOT/constraints.txt" \
    wandb trackio flask flask-cors graphene huey aiohttp pandas </dev/null >&2
