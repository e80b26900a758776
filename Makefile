# Everything from a fresh clone, with Python 3.11 or 3.12, make and a package index.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Two tests at a time; those that start Ray one after another.
PARALLEL := -n 2 --dist loadgroup

.PHONY: help demo test test-fast lint format type bench clean
help:
	@echo "make .venv | demo | test | test-fast | lint | format | type | bench | clean"

# Made anew when what it is made from changes.
.venv: $(VENV)/installed
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "flsplit needs Python 3.11 or newer"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# Ten virtual clients with non-IID data train a split ViT with ADC on Ray.
demo: .venv
	$(BIN)/flsplit

test: .venv
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: .venv
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

format: .venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: .venv
	$(BIN)/mypy

bench: .venv
	$(BIN)/python -m experiments.bench --json bench.json

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
