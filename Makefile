# Reel's commands. `make help` lists them. All of them work in .venv, made from requirements.lock on first use.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
AGAINST ?= HEAD~1
WORKERS ?= 0
SEEDS ?= 3
# A station, a test or a worker of Ray imports thousands of modules: compiled once, not at every start.
unexport PYTHONDONTWRITEBYTECODE
UV_VERSION := $(shell sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements.lock)

.PHONY: help demo test lint contract bench kafka kafka-stop clean lock faults rpc

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

demo: $(READY) ## Run the whole road on a small simulated platform and ask it two questions (KEEP=1 leaves it serving)
	@$(BIN)/reel demo $(if $(KEEP),--keep)

test: $(READY) ## Run all tests but the faults (WORKERS=2 for two at once, each with a Ray and a Kafka of its own)
	@$(BIN)/python -m pytest -m "not fault" --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder

lint: $(READY) ## Check style, types and layering
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

contract: $(READY) ## Check that no event breaks what went before (AGAINST=origin/main, else the commit before)
	@if [ "$(AGAINST)" != HEAD~1 ] || git rev-parse --quiet --verify HEAD~1:configs/schemas >/dev/null; then \
		$(BIN)/reel contract check --revision "$(AGAINST)"; \
	else echo "contract: this clone has no earlier schemas, so there is nothing to compare with"; fi

bench: $(READY) ## Measure the whole road; one JSON line at the end
	@$(BIN)/python -m tests.benchmarks.road

faults: $(READY) ## Run the tests that kill, fill up and hold what Reel stands on, for minutes each (SEEDS=50 for many moments)
	@REEL_FAULT_SEEDS=$(SEEDS) $(BIN)/python -m pytest -m fault

rpc: $(READY) ## Write the gRPC messages anew from serving/rpc/features.proto
	$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. --grpc_python_out=. serving/rpc/features.proto

kafka: $(READY) ## Start a local Kafka broker (Java 17 and Maven; PORT=9092 to choose the port)
	@$(BIN)/python -m pipelines.kafka.broker start $(if $(PORT),--port $(PORT))

kafka-stop: $(READY) ## Stop the local Kafka broker
	@$(BIN)/python -m pipelines.kafka.broker stop

clean: ## Remove everything Reel made here (.reel: tables, models, broker); keeps .venv
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m pipelines.kafka.broker stop; fi
	rm -rf .reel .pytest_cache .mypy_cache .ruff_cache .hypothesis

lock: $(READY) ## Resolve the dependencies anew
	$(BIN)/uv pip compile --universal --generate-hashes --no-annotate --no-header --no-emit-index-url \
		--python-version 3.11 --extra dev --upgrade pyproject.toml -o requirements.lock

$(READY): requirements.lock pyproject.toml
	@echo "Setting up $(VENV) from requirements.lock (once; a few minutes on a fresh machine)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
