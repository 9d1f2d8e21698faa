# Two commands do everything on a fresh machine: `make rollout` and `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SITE ?= parameters/lab.yml
MODE ?= apply
NODES ?= 3
OLDEST := 3.11.0

# As root on Debian or Ubuntu what is missing is installed; elsewhere a line says what to install.
define need
@command -v $(1) >/dev/null 2>&1 || { \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing $(2)"; apt-get -qq update; \
		DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $(2) >/dev/null; \
	else echo "$(1) is missing: install $(2) and run make again" >&2; exit 1; fi; }
endef

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: environment
environment: $(VENV)/.ready ## the Python environment in .venv, exactly as in requirements.lock

$(VENV)/.ready: requirements.lock pyproject.toml
	$(call need,$(PYTHON),python3)
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get -qq update; \
			DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends python3-venv >/dev/null; \
		else echo "Python's venv module is missing: install python3-venv and run make again" >&2; exit 1; fi; }
	@echo "making the Python environment in $(VENV) (a few minutes the first time)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: lab
lab: environment ## the rehearsal cluster on this machine
	$(BIN)/runbook lab up --nodes $(NODES)

.PHONY: rollout
rollout: lab ## roll out every chapter on the lab and leave a record in outputs/
	$(BIN)/runbook rollout $(SITE) --mode $(MODE) --yes

.PHONY: check
check: environment ## formatting, lint, types, import layers, declared dependencies, dead code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -p runbook
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/vulture

# A framework library of other people for the contract tests; see the file for why it comes apart.
$(VENV)/.third-party: tests/contract/third_party/requirements.txt | $(VENV)/.ready
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation --require-hashes -r $<
	@touch $@

.PHONY: test
test: check $(VENV)/.third-party ## everything: checks, unit, contract, lab and browser tests
	$(call need,chromium,chromium)
	$(call need,shellcheck,shellcheck)
	$(call need,busybox,busybox-static)
	$(call need,dash,dash)
	$(BIN)/pytest -n auto --dist loadfile tests/unit
	$(BIN)/pytest tests/contract tests/lab tests/browser

.PHONY: notebooks
notebooks: environment ## JupyterLab on the notebooks
	$(BIN)/jupyter lab --notebook-dir=.

# One lock for every supported Python and system: markers choose where a release wants a newer Python.
.PHONY: lock
lock: ## write requirements.lock from pyproject.toml (needs uv)
	uv pip compile -q --universal --fork-strategy fewest --python-version $(OLDEST) --upgrade --generate-hashes --strip-extras --no-header \
		--no-annotate --extra lab --extra test --extra build -o requirements.lock pyproject.toml

.venv-bench/.ready: benchmarks/requirements.txt
	$(call need,$(PYTHON),python3)
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip install -q -r $<
	@touch $@

.PHONY: bench
bench: environment .venv-bench/.ready ## benchmarks against other tools (their own environment in .venv-bench)
	$(call need,sshd,openssh-server)
	$(BIN)/python -m benchmarks.converge

.PHONY: down
down: ## take the rehearsal cluster down
	$(BIN)/runbook lab down
