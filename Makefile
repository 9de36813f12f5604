# Every target makes the virtual environment it needs. `make` alone lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# The checks of what is installed: their environments lie in build/ and are reused.
LOWEST_PYTHON ?= python3.11
PYTHONS ?= python3.11 python3.12 python3.13
DATA_TESTS := tests/data tests/packaging tests/test_cli_data.py tests/test_cli_cache.py tests/test_examples.py
INSTALL := pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-core test-all test-browser check-lowest check-no-torch check-wheel site notebooks faults lint types bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

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

lint: $(STAMP) ## ruff, codespell, and which room may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/lint-imports --no-cache --no-logo

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

test: lint types ## lint, types and the quick tests
	$(BIN)/pytest -m "not slow and not browser" -n 2

test-core: $(STAMP) ## a short choice of the tests, without processes: a minute or two
	$(BIN)/pytest --core -n 2

test-all: lint types ## the same with the slow tests
	$(BIN)/pytest -m "not browser" -n 2

test-browser: $(STAMP) ## the viewers in the system's Chromium, which root installs by apt; skipped without it
	@command -v chromium >/dev/null || test "$$(id -u)" != 0 || ! command -v apt-get >/dev/null || \
		{ echo "Installing chromium by apt: a minute"; apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || true
	@# A browser on a busy machine may be slow: what failed is tried once more.
	$(BIN)/pytest -m browser tests/browser || $(BIN)/pytest -m browser tests/browser --last-failed

build/lowest/.installed: pyproject.toml constraints.txt tools/lowest_versions.py
	@$(LOWEST_PYTHON) -m venv --clear build/lowest
	@$(LOWEST_PYTHON) tools/lowest_versions.py > build/lowest.txt
	@build/lowest/bin/$(INSTALL) -c build/lowest.txt -e '.[test]'
	@touch $@

check-lowest: build/lowest/.installed ## the data side's tests with the lowest declared versions, without torch
	build/lowest/bin/pytest -m "not slow" -n 2 $(DATA_TESTS)

build/no-torch/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -m venv --clear build/no-torch
	@build/no-torch/bin/$(INSTALL) -c constraints.txt -e '.[test]'
	@touch $@

check-no-torch: build/no-torch/.installed ## the data side's tests in an environment without torch
	@build/no-torch/bin/python -c 'import importlib.util as u, sys; sys.exit("torch is installed" if u.find_spec("torch") else 0)'
	build/no-torch/bin/pytest -m "not slow" -n 2 $(DATA_TESTS)

check-wheel: ## build wheel and sdist, install the wheel with each of PYTHONS, run the commands of the README
	$(PYTHON) tools/check_wheel.py $(PYTHONS)

$(VENV)/.docs: $(STAMP)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

site: $(VENV)/.docs ## build the documentation into build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebooks: $(VENV)/.docs ## execute the notebooks of docs/notebooks
	$(BIN)/python tools/run_notebooks.py

faults: $(STAMP) ## every fault at full counts: the table of docs/reliability.md; twenty minutes
	$(BIN)/python tests/faults/report.py

bench: $(STAMP) ## the measurements, side by side with their yardsticks
	$(BIN)/python -m benchmarks

clean: ## remove what was built, not the data
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
