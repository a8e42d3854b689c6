# Every target sets up what it needs in .venv; the second run finds it done.
#
#   make demo       a region on this machine: boards, broker, gateway, audit
#   make demo-network  two regions and four CometBFT validators on this machine, with faults
#   make test       lint, then all tests on CPython and under MicroPython
#   make soak       the faults of networks, each with three seeds (a quarter of an hour)
#   make lint       the checks alone
#   make bench      the benchmarks
#   make evaluate   judge recordings with false meters; write the tables of docs/judging.md anew
#   make vectors    write the test vectors anew
#   make sample-day compute the sample day anew, compare it, check its power flow with pandapower
#   make coverage   the tests with line and branch coverage (slower)
#   make cometbft   build CometBFT, which tests with real nodes need
#   make lock       pin the requirements anew
#   make clean      remove the environment and every cache

SHELL := /bin/bash
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# PYTHON=python3.13 make test … takes another interpreter.
PYTHON ?= python3
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
       --only-binary=:all:
PYTEST_ARGS ?=
# Tests that wait for networks run beside those that compute.
WORKERS ?= 2

.PHONY: help demo demo-network cometbft test soak lint lint-code lint-format lint-types lint-boards lint-imports \
        format bench evaluate vectors sample-day coverage lock clean setup setup-dev
help:
	@sed -n '/^#   make/s/^# *//p' Makefile

demo: $(VENV)/.demo
	$(BIN)/gridwitness demo

demo-network: $(VENV)/.demo .cometbft/bin/cometbft
	$(BIN)/gridwitness demo-network

cometbft: .cometbft/bin/cometbft

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

# FIRST:COUNT of the seeds; each chooses other nodes and other bytes to damage.
SOAK_SEEDS ?= 2:3
soak: $(VENV)/.dev .cometbft/bin/cometbft
	SOAK_SEEDS=$(SOAK_SEEDS) $(BIN)/python -m pytest $(PYTEST_ARGS) \
	  tests/hil/test_network_faults.py tests/hil/test_network_wrong.py

# `make -k lint` goes on to the next check after one has failed.
lint: lint-code lint-format lint-types lint-boards lint-imports

lint-code: $(VENV)/.dev
	$(BIN)/ruff check

lint-format: $(VENV)/.dev
	$(BIN)/ruff format --check --quiet

lint-types: $(VENV)/.dev
	$(BIN)/mypy $(wildcard ledger gateway hil tools)

lint-boards: $(VENV)/.dev
	@for board in rp2 esp32; do echo "mypy with the types of $$board"; \
	  MYPYPATH=$(VENV)/typings/$$board $(BIN)/mypy --config-file tools/mypy-board.ini \
	    --custom-typeshed-dir $(VENV)/typings/$$board --cache-dir .mypy_cache/$$board \
	    $(wildcard firmware ledger/protocol) || exit 1; done

lint-imports: $(VENV)/.dev
	$(BIN)/lint-imports --no-cache --no-logo

format: $(VENV)/.dev
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

bench: $(VENV)/.dev
	$(BIN)/python -m tools.bench

evaluate: $(VENV)/.dev
	$(BIN)/python -m tools.judging

vectors: $(VENV)/.dev
	$(BIN)/python -m tools.vectors

# PYTHONPATH brings pandapower in for this one run: in the environment it would change other pins.
sample-day: $(VENV)/.dev $(VENV)/sample-day/.done
	$(BIN)/python -m tools.sample_day --check
	PYTHONPATH=$(VENV)/sample-day $(BIN)/python -m pytest $(PYTEST_ARGS) tests/tools/test_sample_day.py

coverage: $(VENV)/.dev
	$(BIN)/coverage run -m pytest $(PYTEST_ARGS)
	$(BIN)/coverage report

lock:
	$(PYTHON) -m tools.lock

setup: $(VENV)/.demo
setup-dev: $(VENV)/.dev

clean:
	rm -rf $(VENV) .cometbft build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ------------------------------------------------------------------------------ the environment

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'Gridwitness needs Python 3.11 or newer; set PYTHON=python3.x' >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' \
	  || { echo 'Python has no venv module: on Debian, apt-get install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.requirements: requirements/gateway.txt requirements/demo.txt | $(BIN)/python
	$(PIP) -r requirements/demo.txt
	@touch $@

# The project itself is installed in place, so that $(BIN)/gridwitness runs this tree.
$(VENV)/.demo: $(VENV)/.requirements pyproject.toml requirements/gateway.in
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.demo $(VENV)/.dev-requirements \
              $(VENV)/typings/rp2/.done $(VENV)/typings/esp32/.done $(VENV)/peers/.done
	@touch $@

$(VENV)/.dev-requirements: $(VENV)/.requirements requirements/dev.txt
	$(PIP) -r requirements/dev.txt
	@touch $@

# The engine of a network of nodes, built from source: see docs/network.md.
.cometbft/bin/cometbft: tools/cometbft.py requirements/go.txt | $(VENV)/.demo
	$(BIN)/gridwitness cometbft install
	@touch $@

# The types of one board's MicroPython replace the standard library's: never in the environment.
$(VENV)/typings/%/.done: requirements/stubs-%.txt | $(VENV)/.requirements
	rm -rf $(@D)
	$(PIP) --target $(@D) -r $<
	@touch $@

# Other programs that tests compare with, each beside the environment: the second COSE library needs
# another cbor2 than ours, pandapower brings half of scientific Python.
$(VENV)/peers/.done $(VENV)/sample-day/.done: $(VENV)/%/.done: requirements/%.txt | $(VENV)/.requirements
	rm -rf $(@D)
	$(PIP) --no-deps --target $(@D) -r $<
	@touch $@
