# Tasks of this checkout. They need Python 3.11 or newer (with venv), git and make.
# `make e2e` also needs a Debian-like system and root, since it starts a Docker engine.

VENV := .venv
BIN := $(VENV)/bin
# Another interpreter, or another index for PyTorch's CPU build: make demo PYTHON=python3.13 TORCH_INDEX=URL
export PYTHON TORCH_INDEX

.DEFAULT_GOAL := help
.PHONY: help demo test check e2e clean clean-e2e

help:  ## list the tasks
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## */\1|/' | while IFS='|' read -r name what; do \
	    printf '  make %-10s %s\n' "$$name" "$$what"; done

demo: $(VENV)/.installed-demo  ## a complete short session on the CPU, in a few minutes
	$(BIN)/overnight demo

check: $(VENV)/.installed-test  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/mypy --strict

test: check  ## check, then all tests without Docker, model server and GPU
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

e2e: $(VENV)/.installed-test  ## sessions with a real Docker engine and vLLM server; E2E="-k name" selects
	scripts/e2e.sh $(CURDIR)/$(BIN)/python $(E2E)

clean:  ## remove the environment and caches, but not runs/
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +

clean-e2e:  ## remove what `make e2e` keeps: images, the model server's environment
	scripts/docker-engine.sh down
	rm -rf "$${OVERNIGHT_CACHE:-$$HOME/.cache/overnight}/e2e"

# Each stamp depends on everything that determines the environment, so a second call does nothing.
$(VENV)/.installed-demo: pyproject.toml constraints.txt scripts/venv.sh
	scripts/venv.sh $(VENV) train,report
	touch $@

# This environment includes the demo's.
$(VENV)/.installed-test: pyproject.toml constraints.txt scripts/venv.sh
	scripts/venv.sh $(VENV) test
	touch $@ $(VENV)/.installed-demo
