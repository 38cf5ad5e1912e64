# Everything a person needs here: `make run`, `make test`. A fresh machine needs Python 3.11, make and git.
# Set-up happens by itself, once; stamps in .venv keep later runs from repeating it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
UV := .venv-tools/bin/uv
TOOLS := .venv-tools/.uv-$(UV_VERSION)
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
CODE := gpubroker offers sessions_app billing templates_app providers tests benchmarks deploy manage.py
# Never another Python than this machine's, whatever environment the shell has active.
export UV_PYTHON_DOWNLOADS := never
export UV_PROJECT_ENVIRONMENT := $(VENV)
unexport VIRTUAL_ENV
# Byte code is kept, or every process of every test would compile Django anew (containers often forbid it).
unexport PYTHONDONTWRITEBYTECODE
# Where the database has a hand in it, on PostgreSQL and Valkey too: locks, transactions, sums, queries, moves of state.
# What starts an embedded stack of its own, or knows no database, would test the same a second time.
ON_BOTH := tests/sessions_app tests/billing tests/offers tests/common tests/console tests/gpubroker tests/templates_app/test_sync.py \
  tests/test_soak.py
# So would what a session goes through on its machine: its states, claims, races and books are there in other tests.
ONLY_ONCE := $(patsubst %,tests/sessions_app/test_%.py,boot_time deploy diagnostics disk estimate heartbeat interruptible \
  known_defects launch_modes paused provider_pages reboot rekey usage warnings watch) \
  $(patsubst %,tests/console/test_%.py,confirm roles runbook) \
  $(patsubst %,tests/gpubroker/test_%.py,bodies fast new_provider openapi review_fast security) tests/billing/test_webhooks_outgoing.py
# Two workers: with four, stacks that start beside each other are too slow for what a test of an outage allows. The order
# is made in tests/order.py.
# A test of real servers, doors and processes may lose its race on a crowded machine: it runs once more, which is told
# (an R, and its name at the end), and what fails twice has failed.
PYTEST := $(BIN)/pytest -n 2 --dist loadgroup --no-loadscope-reorder --reruns 1 -rR --durations=20
# Checks of the code must not depend on a developer's .env, nor leave files in ./var.
PLAIN := GPUBROKER_ENV_FILE= GPUBROKER_DATA_DIR=$(VENV)/check-data

FIND_PYTHON = for candidate in "$${PYTHON:-python3.11}" python3.11 python3 python3.12 python3.13; do \
	  found=$$("$$candidate" -c 'import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 13); print(getattr(sys, "_base_executable", sys.executable))' 2>/dev/null) && break; \
	done; \
	if [ -z "$${found:-}" ]; then echo "Python 3.11 (or 3.12, 3.13) is needed and was not found; install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; fi

.PHONY: help run test browser smoke lint fmt schema bench image-check operations-check soak month screenshots migrate clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 25

run: $(READY) ## Run the whole broker here (http://127.0.0.1:8080)
	@exec $(BIN)/gpubroker run

test: browser ## All tests: on SQLite, then on real PostgreSQL and Valkey
	$(PLAIN) $(PYTEST) -m "not postgresql"
	$(PLAIN) $(BIN)/python -m tests.with_servers $(PYTEST) $(ON_BOTH) $(ONLY_ONCE:%=--ignore=%)

browser: $(READY_DEV) ## Bring the browser that the console's tests use, if none is here
	$(PLAIN) $(BIN)/python -m tests.chromium

smoke: $(TOOLS) ## The README's first session, with only what `make run` installs
	@$(FIND_PYTHON); UV_PROJECT_ENVIRONMENT=.venv-smoke $(UV) sync --quiet --frozen --no-dev --python "$$found"
	.venv-smoke/bin/python -m tests.smoke

lint: $(READY_DEV) ## Style, types, import rules, migrations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PLAIN) $(BIN)/mypy $(CODE)
	$(PLAIN) $(BIN)/lint-imports
	$(PLAIN) $(BIN)/python manage.py makemigrations --check --dry-run
	$(PLAIN) $(BIN)/python manage.py check

fmt: $(READY_DEV) ## Format the code and sort imports
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

schema: $(READY_DEV) ## Write the API's description anew: docs/openapi.json
	$(PLAIN) $(BIN)/python manage.py spectacular --format openapi-json --validate --fail-on-warn --file docs/openapi.json

bench: $(READY_DEV) ## Measure: start-up, memory and more
	$(BIN)/python -m benchmarks

image-check: $(READY_DEV) ## The image and compose.yaml without Docker (as root on Debian, with debootstrap)
	$(PLAIN) $(BIN)/python -m tests.deploy.image_check

operations-check: $(READY_DEV) ## docs/operations.md, walked line by line without Docker (as root on Debian, with debootstrap)
	$(PLAIN) $(BIN)/python -m tests.deploy.operations_check

soak: $(READY_DEV) ## A thousand sessions, faults among them, workers killed; SOAK="--sessions 200 --backend postgresql"
	$(PLAIN) $(BIN)/python -m benchmarks.soak $(SOAK)

month: $(READY_DEV) ## A month of sessions, faults and bills, simulated in minutes; MONTH="--sessions 50 --budget 5"
	$(PLAIN) $(BIN)/python -m benchmarks.month $(MONTH)

screenshots: $(READY_DEV) ## Take the pictures of the console and of its tour anew: docs/pictures
	$(PLAIN) PICTURES_INTO=docs/pictures $(BIN)/pytest -n 0 -o timeout=900 tests/browser/test_tour.py tests/browser/test_pages.py -k "a_picture or test_tour"

migrate: $(READY) ## Bring the database schema up to date (`make run` does it too)
	$(BIN)/gpubroker migrate

clean: ## Remove what set-up made (not your data in ./var)
	rm -rf $(VENV) .venv-tools .venv-smoke .mypy_cache .ruff_cache .hypothesis

$(TOOLS):
	@$(FIND_PYTHON); \
	echo "Setting up, once, with $$found ..."; \
	"$$found" -m venv --clear .venv-tools || { echo "This Python cannot make virtual environments; on Debian and Ubuntu install python3-venv." >&2; exit 1; }
	@.venv-tools/bin/pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
	@touch $@

# With the development tools in place, a plain sync must not take them away again: hence --inexact.
$(READY): pyproject.toml uv.lock $(TOOLS)
	@$(FIND_PYTHON); \
	if [ -e $(READY_DEV) ]; then $(UV) sync --quiet --frozen --no-dev --inexact --python "$$found"; \
	else $(UV) sync --quiet --frozen --no-dev --python "$$found"; fi
	@touch $@

$(READY_DEV): pyproject.toml uv.lock $(TOOLS)
	@$(FIND_PYTHON); $(UV) sync --quiet --frozen --python "$$found"
	@touch $(READY) $@
