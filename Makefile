# Everything a fresh clone needs: `make demo`, `make test`, `make check`. Each makes its environment once.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-oldest check format clean

help:
	@echo "make demo       train a labeled-only model and FixMatch on synthetic faces, and compare them (minutes)"
	@echo "make test       run the tests; those on real data want FER_DATA_ROOT"
	@echo "make test-slow  run the tests that train for minutes"
	@echo "make test-oldest  run a short tier of tests with the oldest versions that pyproject.toml allows"
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

# A short tier: what a change of a library would break first.
OLDEST := .venv-oldest
test-oldest:
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(PYTHON) tests/oldest.py > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/constraints.txt --editable ".[parquet]" \
		pytest pytest-timeout pytest-xdist
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n 2 --dist loadfile tests/losses tests/models \
		tests/data/test_views.py tests/methods/sit_fer tests/test_resume.py tests/test_metrics.py

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(OLDEST) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
