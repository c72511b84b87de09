# Everything a person or CI does with this tree. Each target sets up what it needs; see `make help`.
.DEFAULT_GOAL := test
.PHONY: help quickstart test check soak bench golden constraints test-parts dev clean
MAKEFLAGS += --no-print-directory

PYTHON := .venv/bin/python
PYTEST := .venv/bin/pytest
ARGS ?=
MINUTES ?= 10

help: ## these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: ## set up, then the whole story on this machine (ARGS=--keep leaves it running)
	@scripts/setup_python.sh quickstart
	@$(PYTHON) scripts/setup_test_parts.py --quickstart
	@.venv/bin/hedgerow quickstart $(ARGS)

test: dev test-parts ## set up, install the test parts, then lint, types and every test except soak
	@scripts/check.sh
	@scripts/run_tests.sh $(ARGS)

check: dev ## lint, types, import direction, unit and docs tests; no test parts, under a minute
	@scripts/check.sh
	@$(PYTEST) tests/unit tests/architecture tests/docs -q $(ARGS)

soak: dev test-parts ## the long fault and load runs (MINUTES=10 of scoring)
	@$(PYTEST) tests -q -m soak --timeout=3600 $(ARGS)
	@$(PYTHON) -m loadtests.soak_scoring --minutes $(MINUTES)

bench: dev test-parts ## the figures of docs/benchmarks.md
	@$(PYTHON) -m loadtests

golden: dev ## write generated documents anew: JSON Schemas, reference pages
	@$(PYTHON) -m scripts.golden

constraints: dev ## newest versions of all dependencies into constraints.txt
	@scripts/compile_constraints.sh

test-parts: dev ## install the real programs that tests run (HEDGEROW_NO_INSTALL=1 only checks)
	@$(PYTHON) scripts/setup_test_parts.py
	@$(PYTHON) -m tests.fixtures.base_image

dev: ## .venv with everything for development
	@scripts/setup_python.sh dev

clean: ## remove .venv, caches and what quickstart left
	@rm -rf .venv .venv.lock .setup.log .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist hedgerow-quickstart
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
