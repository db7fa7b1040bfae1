# Everything a person or CI does with this checkout. Only Python 3.11+ (with venv), git and make are needed;
# `make e2e` alone wants a Debian-like system and root, since it starts a real Docker engine.

VENV := .venv
BIN := $(VENV)/bin
# Name an interpreter, or another index for PyTorch's build for CPUs, like this: make demo PYTHON=python3.13 TORCH_INDEX=URL
export PYTHON TORCH_INDEX

.DEFAULT_GOAL := help
.PHONY: help demo test check e2e clean clean-e2e

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## */\1|/' | while IFS='|' read -r name what; do \
	    printf '  make %-10s %s\n' "$$name" "$$what"; done

demo: $(VENV)/.installed-demo  ## a complete short session on this machine's CPU, in a few minutes
	$(BIN)/overnight demo

check: $(VENV)/.installed-test  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/mypy --strict

test: check  ## check, then every test that needs no Docker, no model server and no GPU
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

e2e: $(VENV)/.installed-test  ## whole sessions against a real Docker engine and a real vLLM server; E2E="-k name" picks
	scripts/e2e.sh $(CURDIR)/$(BIN)/python $(E2E)

clean:  ## remove the environment and caches; runs/ stays
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +

clean-e2e:  ## remove what `make e2e` keeps between runs (images, the model server's environment)
	scripts/docker-engine.sh down
	rm -rf "$${OVERNIGHT_CACHE:-$$HOME/.cache/overnight}/e2e"

# A stamp is newer than everything that decides what is installed, so that a second call is quick.
$(VENV)/.installed-demo: pyproject.toml constraints.txt scripts/venv.sh
	scripts/venv.sh $(VENV) train,report
	touch $@

# The demo's stamp comes along: this installs a superset.
$(VENV)/.installed-test: pyproject.toml constraints.txt scripts/venv.sh
	scripts/venv.sh $(VENV) test
	touch $@ $(VENV)/.installed-demo
