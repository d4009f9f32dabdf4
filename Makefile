# Every command of the project; `make` alone lists them. Anything longer than three lines lives in scripts/.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/.tools/bin:$(PATH)
PYTHON_FILES := services envoy clients bench tests scripts deploy

.PHONY: help setup lock gen gen-check fmt lint types imports proto-lint compose-check test-tools test web up demo check bench clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1mmake %-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Only Python 3.11+ (with venv), make, git and bash are needed; go, node and curl for some tests."

setup: ## Install everything into .venv (does nothing when it is current)
	@bash scripts/setup.sh

demo: setup ## Replay 16 real bus runs through the whole stack and print what arrived; ends by itself
	@wayfare demo

web: setup ## Build the web pages that the stack serves
	@bash scripts/web.sh

up: setup web ## Start the whole stack, print how to call it, stop it with Ctrl-C
	@wayfare up

test-tools: ## Install the programs that tests drive: grpcurl, h2spec, grpc-js
	@bash scripts/test_tools.sh

test: setup web test-tools ## Run every test with real PostgreSQL, Valkey and Envoy (ARGS="-k word" narrows)
	@bash scripts/test.sh $(ARGS)

check: ## Run every gate and every test: what CI runs
	@bash scripts/check.sh

fmt: setup ## Format Python and protos
	@ruff format $(wildcard $(PYTHON_FILES))
	@ruff check --fix --exit-zero --quiet $(wildcard $(PYTHON_FILES))
	@buf format -w --path proto/wayfare

lint: setup ## Check Python style and format
	@ruff check $(wildcard $(PYTHON_FILES))
	@ruff format --check --quiet $(wildcard $(PYTHON_FILES)) || { echo "lint: make fmt repairs the format"; exit 1; }

types: setup ## Check Python types, strictly
	@bash scripts/types.sh

imports: setup ## Check who may import whom
	@lint-imports --no-logo --config pyproject.toml

gen: setup ## Generate gen/ from proto/
	@bash scripts/gen.sh

gen-check: setup ## Check that gen/ is what proto/ generates
	@bash scripts/gen_check.sh

proto-lint: setup ## Check protos: style, format, and that nobody's client breaks
	@bash scripts/proto_lint.sh

compose-check: setup ## Check docker-compose.yml and the Dockerfile without an engine
	@python scripts/check_compose.py

lock: setup ## Fix the dependencies of pyproject.toml in requirements.lock (ARGS=--upgrade for newer ones)
	@.tools/uv/bin/uv pip compile --quiet --no-header --generate-hashes --universal --python-version 3.11 \
	  --group dev --group stack $(ARGS) --output-file requirements.lock pyproject.toml >/dev/null

bench: setup ## Measure throughput, latency, CPU and memory per stream; prints its figures
	@python -m bench $(ARGS)

clean: ## Remove everything that can be made again (keeps .wayfare; `wayfare reset` clears that)
	@rm -rf .venv .tools tests/e2e/node/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
