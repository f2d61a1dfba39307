# Every target sets up all that it needs. `make setup` is quick when there is nothing to do.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
export OMP_NUM_THREADS ?= 1
TESTERS ?= 2

.PHONY: setup demo test lint types imports check unit bench bench-search lock clean

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-virtualenv -r requirements.lock
	$(BIN)/python -m pip install --quiet --require-virtualenv --no-deps --no-build-isolation -e .
	touch $(STAMP)

demo: setup
	$(BIN)/python examples/demo.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

# Two at a time; what starts services of its own wants the machine to itself
unit: setup
	$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --ignore tests/e2e
	$(BIN)/python -m pytest tests/e2e

test: lint types imports unit

bench: bench-costs bench-latency-bound bench-overhead bench-training $(if $(BEDS),bench-search)

# Published tables are not part of the project: what is missing in BEDS is named, with its source
bench-search: setup
	$(BIN)/python -m benchmarks.search $(or $(BEDS),beds) $(ARGS)

# `make bench-NAME` runs benchmarks/NAME.py; ARGS reaches it
bench-%: setup
	$(BIN)/python -m benchmarks.$(subst -,_,$*) $(ARGS)

# Pins are taken anew: the runtime, development and references set, and the API's own without torch and ray.
# A local build of torch (+cpu) is written without its suffix, so that the pin holds everywhere.
COMPILE := $(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --no-emit-find-links --no-emit-index-url --no-annotate --no-header
lock: setup
	echo 'torch==2.13.0' | $(COMPILE) --extra dev --extra references --constraint /dev/stdin --output-file requirements.lock pyproject.toml
	sed -i 's/+cpu$$//' requirements.lock
	$(COMPILE) --constraint requirements.lock --output-file requirements-api.lock requirements-api.in

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
