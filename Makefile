# Every command sets up what it needs: a virtual environment in .venv from names and versions in constraints.txt.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
ALONE  := tests/runtime/engine/test_task_fairness.py# it counts turns of the loop: nothing else may want the machine
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo browser test long check format bench bench-rivals docs clean

$(VENV)/.run: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) -e . rich
	@touch $@

$(VENV)/.check: $(VENV)/.run
	@$(PIP) -e '.[all]' attrs fsspec hypothesis numpy pandas playwright pydantic pytest pytest-timeout pytest-xdist schemathesis sniffio
	@$(PIP) asyncpg-stubs mypy 'pyright[nodejs]' ruff types-docker types-jsonschema types-python-dateutil types-PyYAML
	@touch $@

demo: $(VENV)/.run  ## Census of the standard library: thousands of real files through threads and processes.
	@$(BIN)/python docs/examples/census.py

browser:  ## The browser that the tests of the pages drive; without it they are skipped.
	@command -v chromium >/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-inter fonts-jetbrains-mono >/dev/null; \
	} || echo "Chromium is not installed, and cannot be here: the tests of the pages are skipped."

test: $(VENV)/.check browser  ## The whole test-suite.
	@$(BIN)/python -m pytest $(ALONE)
	@$(BIN)/python -m pytest -n 4 --dist worksteal --ignore $(ALONE)  # many wait: for processes, locks and the disk

SEED  ?= 1000000
TESTS ?=
long: $(VENV)/.check browser  ## The random tests for days, or some of them: make long SEED=7 TESTS="tests/oracle --kills 500"
	@$(BIN)/python -m pytest -n 4 --dist worksteal --timeout 0 --long --first-seed $(SEED) $(TESTS)

check: $(VENV)/.check  ## Format, lint, types and layers.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/pyright
	@$(BIN)/python -m pytest -q tests/test_layers.py

format: $(VENV)/.check
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

bench: $(VENV)/.check  ## Ratios against asyncio and the standard pools; results kept in benchmarks/results.
	@$(BIN)/python -m benchmarks

bench-rivals: $(VENV)/.check  ## Prefect, Dask, Ray and others, each in an environment of its own.
	@$(BIN)/python -m benchmarks.rivals

docs: $(VENV)/.check browser  ## Run every example of the docs and README; take the pictures of the pages.
	@$(BIN)/python -m pytest -q tests/docs
	@$(BIN)/python -m tests.demo.screenshots docs/images

clean:
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist
