# Everything a newcomer needs is Python 3.11 or later and make; each target prepares .venv by itself.
PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# By another name: a line of a recipe that says $(MAKE) itself is run even under `make -n`, all of it.
AGAIN := $(MAKE) --no-print-directory

.DEFAULT_GOAL := help
.PHONY: help demo test check lint newcomer test-long faults soak bench format clean

help: ## show this list
	@echo "Targets (options go in ARGS, as in: make demo ARGS=--once):"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

demo: $(INSTALLED) ## the whole pipeline on an embedded Kafka and PostgreSQL, live; --once loads, audits and ends
	@$(BIN)/tutormax-streams demo $(ARGS)

# Side by side: properties and types need a processor, servers mostly wait. Faults come alone: they judge by time.
# Brokers that live for minutes are better off with Java's quick compiler: they hardly run what it saves on.
flow_tests = $(patsubst %,tests/flow/test_%.py,$(1))
models := tests/models
servers := tests/browser tests/deploy tests/embedded
flow-1 := $(call flow_tests,alerts dead_letters demo foreign_records schemathesis)
flow-2 := $(call flow_tests,audit breaker corpus examples fence judge lookups_without_postgres state time)
flow-3 := tests/flow $(addprefix --ignore=,$(flow-1) $(flow-2))
others := tests $(addprefix --ignore=,$(models) $(servers) tests/flow tests/faults)
test: export JAVA_TOOL_OPTIONS := -XX:TieredStopAtLevel=1 $(JAVA_TOOL_OPTIONS)
test: $(INSTALLED) ## everything: style, types, imports, then all tests on real servers
ifeq ($(ARGS),)
	@logs=$$(mktemp -d); lanes=; failed=0; \
	  trap 'kill $$lanes 2>/dev/null; rm -rf "$$logs"' EXIT; trap 'exit 130' INT TERM; \
	  nice -n 10 $(AGAIN) lint >"$$logs/lint" 2>&1 & lanes="$$lanes $$!"; \
	  nice -n 10 $(BIN)/pytest $(models) >"$$logs/models" 2>&1 & lanes="$$lanes $$!"; \
	  $(foreach lane,servers flow-1 flow-2 flow-3,$(BIN)/pytest $($(lane)) >"$$logs/$(lane)" 2>&1 & lanes="$$lanes $$!";) \
	  $(BIN)/pytest $(others) || failed=1; \
	  for one in $$lanes; do wait $$one || failed=1; done; \
	  for log in lint models servers flow-1 flow-2 flow-3; do echo "beside them:"; cat "$$logs/$$log"; done; \
	  $(BIN)/pytest tests/faults || failed=1; exit $$failed
else
	@$(AGAIN) lint
	$(BIN)/pytest $(ARGS)
endif

check: $(INSTALLED) lint ## the quick part: style, types, imports and the tests that need no servers
	HYPOTHESIS_PROFILE=quick $(BIN)/pytest -m "not servers and not slow" $(ARGS)

lint: $(INSTALLED) ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

newcomer: $(INSTALLED) ## the README's first screen, typed into a terminal in a clean clone (a quarter of an hour)
	$(BIN)/pytest tests/newcomer $(ARGS)

test-long: $(INSTALLED) ## five minutes of made-up requests, then the properties with 100,000 examples each (over an hour)
	SCHEMATHESIS_SECONDS=300 $(BIN)/pytest tests/flow/test_schemathesis.py
	HYPOTHESIS_PROFILE=long $(BIN)/pytest --timeout 0 tests/models $(ARGS)

faults: $(INSTALLED) ## break everything, one after the other, and judge; writes docs/reliability.md (over three hours)
	$(BIN)/python -m tests.faults.campaign $(ARGS)

soak: $(INSTALLED) ## an hour at 500 events a second, and whether memory grows
	$(BIN)/python -m tests.faults.campaign --only soak $(ARGS)

bench: $(INSTALLED) ## the short form of all benchmarks; prints the table that the README quotes
	$(BIN)/python -m benchmarks $(ARGS)

format: $(INSTALLED) ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv, caches and builds
	rm -rf $(VENV) dist build .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "tutormax-streams needs Python 3.11 or later, but $(PYTHON) is $$($(PYTHON) --version 2>&1);" \
	       "name another one, as in: make PYTHON=python3.12 demo" >&2; exit 1; }
	@echo "Installing into $(VENV) (once, and again when pyproject.toml changes) ..."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[embedded,dev]'
	@touch $@
