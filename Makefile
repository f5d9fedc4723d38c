# Every target does its own set-up: `make demo` and `make test` need Python >= 3.11 and make, nothing else.
# Written for GNU make 3.81 too, which is what macOS has.

# The first of these that runs and is new enough; say PYTHON=... to choose another.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo $$p; break; fi; done)
LOCK := ops/requirements-dev.lock
BIN := .venv/bin
# More words for pytest or gateway init: make test ARGS="-k token"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help .venv demo up init setup test test-all test-compose prove bench plots lint audit format schemas lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

demo: .venv/.complete ## the whole story in a minute, on a real broker: webhooks become events
	@$(BIN)/gateway demo

up: .venv/.complete ## the same parts, left running until Ctrl-C
	@$(BIN)/gateway up

init: .venv/.complete ## .env and secrets/ for `docker compose up` (ARGS="--site https://yourapp.com", "--sandbox")
	@$(BIN)/gateway init $(ARGS)

setup: .venv/.complete ## migrate the store and declare the topology, as .env or the environment says
	@$(BIN)/gateway setup

test: .venv/.complete ## all tests (ARGS="-k token" for some)
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

prove: .venv/.complete ## ten minutes in which everything fails under load, and a ledger (ARGS="--seed 7")
	@$(BIN)/gateway prove --minutes 10 $(ARGS)

test-all: test test-compose ## all tests, Compose, and a minute in which everything fails
	@$(BIN)/gateway prove --minutes 1

test-compose: .venv/.complete ## docker-compose.yml for real, on a Docker engine (RABBITMQ_IMAGE=… for another broker)
	@$(BIN)/python -m pytest tests/compose --verbose --capture=no $(ARGS)

bench: .venv/.complete .venv-peers/.complete ## what it costs, beside other ways to do it (bench-ingress for one of them)
	@$(BIN)/python -m benchmarks $(ARGS)

plots: .venv-peers/.complete ## docs/performance/*.png, of what `make bench` has measured last
	@.venv-peers/bin/python -m benchmarks.plots $(ARGS)

bench-%: .venv/.complete .venv-peers/.complete
	@$(BIN)/python -m benchmarks $* $(ARGS)

.venv-peers/.complete: benchmarks/peers.lock
	@$(BIN)/python -m venv --clear .venv-peers
	@.venv-peers/bin/python -m pip --disable-pip-version-check --no-input -qq install --require-hashes -r $<
	@touch $@

lint: .venv/.complete ## format, rules, import direction, types, documents, container files, alert rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/mypy
	@$(BIN)/gateway schemas check
	@if command -v promtool >/dev/null; then \
		promtool check config ops/compose/prometheus/prometheus.yml >/dev/null && \
		promtool test rules tests/data/prometheus/alerts_test.yml >/dev/null; \
	else echo "promtool is not here (Debian's package prometheus has it): alert rules are not checked"; fi
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml
	@made=$$(mktemp -d) && trap 'rm -rf "$$made"' EXIT && $(BIN)/gateway init --sandbox --directory "$$made" --json >/dev/null \
		&& $(BIN)/docker-compose --project-directory "$$made" -f docker-compose.yml --profile '*' config -q

audit: .venv-audit/.complete ## known vulnerabilities of what the locks name, as PyPI tells them
	@.venv-audit/bin/python ops/audit.py ops/requirements.lock $(LOCK) benchmarks/peers.lock ops/audit.lock

.venv-audit/.complete: ops/audit.lock
	@"$(PYTHON)" -m venv --clear .venv-audit
	@.venv-audit/bin/python -m pip --disable-pip-version-check --no-input -qq install --require-hashes -r $<
	@touch $@

format: .venv/.complete ## format the code and mend what can be mended by machine
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

schemas: .venv/.complete ## JSON Schemas, AsyncAPI and OpenAPI from the code, into schemas/documents
	@$(BIN)/gateway schemas write

lock: .venv/.complete ## newest versions that pyproject.toml and benchmarks/peers.in allow, into the locks
	@$(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links -o ops/requirements.lock pyproject.toml
	@$(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --extra dev -c ops/requirements.lock -o $(LOCK) pyproject.toml
	@$(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links -o benchmarks/peers.lock benchmarks/peers.in
	@$(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links -o ops/audit.lock ops/audit.in

.venv: .venv/.complete ## the virtual environment, from the lock

.venv/.complete: $(LOCK)
	@sh ops/venv.sh "$(PYTHON)" $(LOCK)

clean: ## remove the virtual environment and all that tools left behind
	rm -rf .venv .venv-peers .venv-audit .work build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
