# One command each; every target does its own set-up. Needs Python 3.11+ and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# For every Python that we run on and every machine: the image's isn't the one that this is run with.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate $(ARGS)
BUILD_REQUIRES := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")

# Tests start hundreds of processes. Where Python is told to write no bytecode, each would compile the package for itself.
COMPILE_OURS := $(BIN)/python -m compileall -q proxy

SECONDS ?= 600
SEED    ?= $(shell date +%s)

.PHONY: run test lint unit full-path again e2e clients conformance crash fuzz chaos format schema bench loadtest loadtest-quick soak audit lock clean help

help:                ## what there is
	@grep -E '^[a-z0-9-]+: .*##|^[a-z0-9-]+:  +##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

run: $(STAMP)        ## the demo: two single-arch images, the proxy in front, one merged name
	$(BIN)/manifuse demo $(ARGS)

test: lint unit      ## everything that must hold: format, lint, types, layers, tests with coverage

lint: $(STAMP)       ## ruff, mypy strict, import-linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

unit: $(STAMP)       ## the tests alone (real peers are used where they are installed)
	$(COMPILE_OURS)
	$(BIN)/pytest -n auto --cov --cov-report=term-missing:skip-covered $(ARGS)

full-path: $(STAMP)  ## the tests once more, without hot answers
	$(COMPILE_OURS)
	MANIFUSE_TEST_HOT=0 $(BIN)/pytest -n auto $(ARGS)

again: $(STAMP)      ## the tests that failed last, alone and one after another
	$(BIN)/pytest --verbose --last-failed --last-failed-no-failures none $(ARGS)

e2e: $(STAMP)        ## only the tests with real registries and clients
	$(BIN)/pytest -m e2e $(ARGS)

clients: $(STAMP)    ## every client and what it can do, with all peers there; writes docs/clients.md
	MANIFUSE_CLIENTS=docs/clients.md $(BIN)/pytest tests/e2e $(ARGS)

conformance: $(STAMP) ## the OCI conformance suite, against registries and through manifuse; writes docs/conformance.md
	MANIFUSE_CONFORMANCE=docs/conformance.md $(BIN)/pytest tests/conformance -m 'slow or not slow' $(ARGS)

crash: $(STAMP)      ## kill the service a hundred times under load, and see that it has lost nothing
	$(BIN)/pytest tests/crash -m 'slow or not slow' $(ARGS)

fuzz: $(STAMP)       ## hostile input for ten minutes, or for SECONDS=…; a finding is repeated with its SEED=…
	MANIFUSE_FUZZ_SECONDS=$(SECONDS) MANIFUSE_FUZZ_SEED=$(SEED) $(BIN)/pytest tests/fuzz $(ARGS)

chaos: $(STAMP)      ## every way in which a registry fails, between real clients and a real one; writes docs/operations.md
	$(BIN)/pytest tests/chaos -m 'slow or not slow' $(ARGS)

format: $(STAMP)     ## write the code as ruff wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

schema: $(STAMP)     ## write config/manifuse.schema.json from the settings' types
	$(BIN)/manifuse check --schema > config/manifuse.schema.json

bench: $(STAMP)      ## the cold path against the same requests sent straight to the registry
	$(BIN)/python loadtest/cold.py $(ARGS)

loadtest: $(STAMP)   ## manifuse against nginx and other registries, about 13 minutes; writes loadtest/RESULTS.md
	PYTHONPATH=tests $(BIN)/python -m loadtest.run --write RESULTS $(ARGS)

loadtest-quick: $(STAMP) ## the ratios alone, in about a minute
	PYTHONPATH=tests $(BIN)/python -m loadtest.run --plan quick $(ARGS)

soak: $(STAMP)       ## an hour's worth of requests: does memory grow?; writes loadtest/SOAK.md
	PYTHONPATH=tests $(BIN)/python -m loadtest.run --only soak --write SOAK $(ARGS)

audit: $(STAMP)      ## known vulnerabilities of what the image holds, bandit, licences, and whether the locks are right
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive proxy
	$(BIN)/pytest --quiet tests/supply
	PYTHONPATH=tests $(BIN)/python -m supply.advisories requirements/run.lock requirements/build.lock

lock: $(STAMP)       ## write requirements/*.lock from pyproject.toml; ARGS=--upgrade takes newer versions
	$(COMPILE) --generate-hashes pyproject.toml --output-file requirements/run.lock
	$(BIN)/python -c '$(BUILD_REQUIRES)' | $(COMPILE) --generate-hashes - --output-file requirements/build.lock
	$(COMPILE) --constraint requirements/run.lock --extra dev --no-emit-package pip pyproject.toml --output-file requirements/dev.lock

clean:               ## remove what the targets made
	rm -rf $(VENV) .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# With the versions that the tests were last seen to pass with: new ones of the tools have broken them overnight.
$(STAMP): pyproject.toml requirements/dev.lock proxy/__init__.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "manifuse needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements/dev.lock --editable '.[dev]'
	touch $@
