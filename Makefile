# Crossfade. `make demo` and `make test` are all that a fresh machine needs; `make` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: cluster-up ## Roll a broken and a good model version out on a real cluster, and watch
	$(BIN)/python -m cluster.install mlserver
	$(BIN)/python -m examples.demo

.PHONY: test
test: lint coverage e2e ## Run everything: lint, types, unit and property tests, end-to-end tests

.PHONY: check
check: lint ## Run everything that needs no cluster (under a minute)
	$(BIN)/pytest -n 2 --timeout=60 tests/unit

.PHONY: lint
lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m crossfade.api.schema --check
	$(BIN)/python -m crossfade.api.reference --check
	$(BIN)/python -m cluster.chart --check

.PHONY: coverage
coverage: $(STAMP)
	$(BIN)/pytest -n 2 --timeout=60 --cov --cov-report=term:skip-covered tests/unit

.PHONY: fuzz
fuzz: $(STAMP) ## Run the property tests with new examples, ROUNDS times (10), until one fails
	@for round in $$(seq $(ROUNDS)); do echo "Round $$round of $(ROUNDS)"; \
		$(BIN)/pytest -q -n 2 -m hypothesis --hypothesis-profile=fuzz tests/unit || exit 1; done

ROUNDS := 10

.PHONY: e2e
e2e: cluster-up ## Run the end-to-end tests on the real cluster
	$(BIN)/python -m cluster check-kind-config
	$(BIN)/python -m cluster.install model-stub
	$(BIN)/pytest --timeout=900 -v -n 4 --dist worksteal -m "not alone" tests/e2e
	$(BIN)/pytest --timeout=900 -v -m alone tests/e2e

.PHONY: cluster-up
cluster-up: $(STAMP) ## Bring a real one-node cluster up, with gateway, Prometheus and images
	$(BIN)/python -m cluster up

.PHONY: cluster-down
cluster-down: $(STAMP) ## Take the cluster down
	$(BIN)/python -m cluster down

.PHONY: generate
generate: $(STAMP) ## Write the generated files again
	$(BIN)/python -m crossfade.api.schema
	$(BIN)/python -m crossfade.api.reference
	$(BIN)/python -m cluster.chart
	$(BIN)/python -m tests.unit.argocd_statuses
	$(BIN)/python -m examples.argocd

.PHONY: docs
docs: $(STAMP) ## Build the documentation as a site, in out/site
	$(BIN)/mkdocs build --strict

.PHONY: format
format: $(STAMP) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: lock
lock: $(STAMP) ## Resolve the dependencies anew and pin them by hash
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile $(LOCK_FLAGS) pyproject.toml -o requirements/operator.txt
	$(BIN)/uv pip compile $(LOCK_FLAGS) pyproject.toml requirements/dev.in \
		-c requirements/operator.txt -o requirements/dev.txt

LOCK_FLAGS := --quiet --upgrade --python-version 3.11 --universal --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links --no-annotate

# The lock is whole. With --no-deps pip 23 does not resolve again, and so does not take a version
# newer than the locked one for what is asked for with an extra (coverage[toml]).
$(STAMP): requirements/dev.txt pyproject.toml
	@echo "Setting up $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps -e .
	@touch $@
