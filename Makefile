# Everything runs in .venv; PYTHON is the interpreter that makes it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
STAMP := $(VENV)/.installed

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help setup demo tutorial test lint bench chaos

help:
	@echo "make setup   install tokenfield and its tools into $(VENV), with the pinned versions"
	@echo "make demo    compare theory, agents and trained transformers on a tree"
	@echo "make tutorial  run tutorial.py from top to bottom, and write tutorial.html"
	@echo "make test    run the tests; narrow them with ARGS, as in make test ARGS='-k guard'"
	@echo "make lint    check style, types and the direction of imports"
	@echo "make bench   measure loops, actors, traces and training against what bounds them"
	@echo "make chaos   kill actors, hubs, nodes and drivers of runs at random, and compare every bit"
	@echo
	@echo "JOBS=...     processes that share the tests (now: $(JOBS))"
	@echo "PYTHON=...   the interpreter that makes $(VENV): 3.11 or newer (now: $(PYTHON))"

setup: $(STAMP)
	@:

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "tokenfield needs Python 3.11 or newer, and '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)" >&2; \
	    echo "Name another one: make setup PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing into $(VENV) (a minute or two)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# Older pips hand PIP_CONSTRAINT to the isolated build, newer ones PIP_BUILD_CONSTRAINT.
	@PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
	    $(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: setup
	@$(BIN)/tokenfield compare demo $(ARGS)

tutorial: setup
	@$(BIN)/python -m jupytext --quiet --to ipynb --output tutorial.ipynb tutorial.py
	@$(BIN)/python -m nbconvert --log-level ERROR --execute --to html tutorial.ipynb
	@rm tutorial.ipynb
	@echo "tutorial: tutorial.html"

test: setup
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile $(ARGS)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

bench: setup
	@$(BIN)/python -c 'import mesa' 2>/dev/null || PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
	    $(BIN)/python -m pip install --quiet --editable '.[bench]'
	@$(BIN)/python -m tests.bench $(ARGS)

chaos: setup
	@$(BIN)/python -m tests.chaos $(ARGS)
