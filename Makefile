# Everything from a fresh clone, with Python 3.11 to 3.13, make and a package index.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Two tests at a time; those that start Ray one after another.
PARALLEL := -n 2 --dist loadgroup

.PHONY: help demo test test-fast test-newest lint format type bench clean
help:
	@echo "make .venv | demo | test | test-fast | test-newest | lint | format | type | bench | clean"

# Made anew when what it is made from changes. The launcher is tested, but asks for older packages than ours.
.venv: $(VENV)/installed
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "flsplit needs Python 3.11 or newer"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'hydra-ray-launcher>=1.2,<2'
	@touch $@

# Ten virtual clients with non-IID data train a split ViT with ADC on Ray.
demo: .venv
	$(BIN)/flsplit

test: .venv
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: .venv
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

# The engines and what else speaks to Flower and Ray, with their newest supported versions, in an environment beside.
NEWEST := 'flwr==1.42.*' 'ray==2.60.*'
test-newest:
	test -x .venv-newest/bin/python || $(PYTHON) -m venv .venv-newest
	grep -vE '^(flwr|ray)==' constraints.txt > .venv-newest/constraints.txt
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-newest/constraints.txt -e '.[dev]' $(NEWEST)
	.venv-newest/bin/python -m pytest tests/engine tests/transport tests/server tests/test_end_to_end.py

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
