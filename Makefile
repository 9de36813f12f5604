# Every target makes the virtual environment it needs. `make` alone lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all faults lint types bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; $(PYTHON) is older. Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing into $(VENV): a minute or two"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
	@touch $@

setup: $(STAMP) ## make the virtual environment and install everything into it

demo: $(STAMP) ## render, convert, train, evaluate, predict: from nothing to demo/prediction.png
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh demo.sh

lint: $(STAMP) ## ruff: style and format; which room imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

test: lint types ## lint, types and the tests
	$(BIN)/pytest -m "not slow" -n 2

test-all: lint types ## the same with the slow tests
	$(BIN)/pytest -n 2

faults: $(STAMP) ## every fault at full counts: the table of docs/reliability.md; twenty minutes
	$(BIN)/python tests/faults/report.py

bench: $(STAMP) ## the measurements, side by side with their yardsticks
	$(BIN)/python -m benchmarks

clean: ## remove what was built, not the data
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
