# Everything a fresh clone needs: `make demo`, `make test`, `make check`. Each makes its environment once.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check format clean

help:
	@echo "make demo       train a labeled-only model and FixMatch on synthetic faces, and compare them (minutes)"
	@echo "make test       run the tests; those on real data want FER_DATA_ROOT"
	@echo "make test-slow  run the tests that train for minutes"
	@echo "make check      lint, formatting and types"
	@echo "make format     put the code into shape"
	@echo "make clean      remove the environment and caches"

$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(VENV)/installed $@

# A demo is watched from its beginning, so it starts from nothing each time.
demo: $(VENV)/installed
	rm -rf runs/demo
	$(BIN)/fer-lightning matrix experiments/demo.yaml

# One thread each, because two processes share the cores; a file's tests stay in one, because they share fixtures.
test: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
