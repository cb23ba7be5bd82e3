# Everything runs in a virtual environment that is made on the first call and kept. `make help` lists the targets.

.DEFAULT_GOAL := help
.PHONY: help run test check static bench firmware fil fmt lint type clean
.NOTPARALLEL:

VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# the first interpreter that is new enough; `make PYTHON=... run` names another
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */|/' | while IFS='|' read -r t d; do printf '  make %-8s %s\n' "$$t" "$$d"; done

run: $(VENV)/.run  ## run the control loop on the embedded twin of a rack and write a report
	@$(BIN)/bms run

test: $(VENV)/.test  ## run the tests, on WORKERS processes (2)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

check: static test  ## all that CI does: format, lint, types, import contracts, tests

static: $(VENV)/.dev
	@$(BIN)/ruff format --check --quiet . || { echo "format: run 'make fmt'"; exit 1; }
	@echo "format: good"
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.test  ## print the tables of bench/; COMPARE=FOLDER: beside those of an earlier bench/results
	@for table in ekf loop parts twin startup trial campaign modbus wires peers; do $(BIN)/python bench/$$table.py $(if $(COMPARE),--compare $(COMPARE)) || exit 1; done
	@$(BIN)/python -m pytest bench/record.py --benchmark-only --benchmark-disable-gc -q \
		--benchmark-columns=min,median,max,rounds --benchmark-sort=fullname
	@$(BIN)/python bench/accuracy.py

firmware: $(VENV)/.run  ## build the controller for every processor, and the firmware of the boards, into build/
	@for target in host cortex-m7 cortex-m4f cortex-m33 cortex-a53 riscv32imafc; do \
		$(BIN)/bms build --target $$target --config lfp_280 -o build/$$target || exit 1; done

fil: $(VENV)/.run  ## run the emulated boards in step with racks, and compare every decision with this computer's
	@$(BIN)/bms build --target host -o build/host
	@$(BIN)/bms fil --quiet --scenario open_wire --duration 2min
	@$(BIN)/bms fil --quiet --scenario sodium_transport --duration 1h --against lib:build/host/librackbms.so
	@$(BIN)/bms fil --quiet --scenario nmc_v2g --duration 20min --engine qemu:cortex-m4f
	@$(BIN)/bms fil --quiet --scenario open_wire --duration 2min --engine qemu:cortex-a53
	@$(BIN)/bms trial run --quiet --pack rows --engine qemu:cortex-m7,jit --out runs/fil-trials

fmt: $(VENV)/.dev  ## format the sources
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix-only --quiet .

lint: $(VENV)/.dev  ## look for mistakes, and check who imports whom
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports

type: $(VENV)/.dev  ## check the types
	@$(BIN)/mypy

clean:  ## delete the environment and everything that can be made again, but no results
	rm -rf $(VENV) .venv-peers build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .import_linter_cache

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "rackbms needs Python 3.11 or newer; install it, or name it: make PYTHON=/path/to/python3"; exit 1; }
	@echo "making the environment $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

# one stamp for each set of packages: `make run` does not wait for what only the tests need
$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo "installing what a run needs into $(VENV) (the first time takes a minute)"
	@$(PIP) -e '.[report]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	@echo "installing what the tests need into $(VENV) (the first time takes a minute)"
	@$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.run

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "installing the tools of a developer into $(VENV) (the first time takes a minute)"
	@$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.test $(VENV)/.run
