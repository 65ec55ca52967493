# Developer commands. Everything happens in a local .venv; users need only pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test test-all check bench docs clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "tunescope needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,check]'
	touch $(STAMP)

demo: $(STAMP)  ## the main job on the embedded default: data, tune, evaluate, look inside, report
	$(BIN)/tunescope run quickstart

# Two workers of one thread each: on two cores faster than one worker, and threads never wait for one another.
test: export OMP_NUM_THREADS = 1
test: $(STAMP)  ## every test that is neither slow nor in need of ../shared
	$(BIN)/pytest -m "not slow and not shared" -n 2 --dist loadfile

test-all: $(STAMP)  ## also the slow ones, and those on real data where TUNESCOPE_SHARED (../shared) exists
	$(BIN)/pytest

check: $(STAMP)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)  ## every benchmark; each ends with one JSON line a figure
	for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

docs: $(STAMP)  ## the documentation as a site in build/site; needs no network
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis dist build
