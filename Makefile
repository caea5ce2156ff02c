# What a developer runs. Needs Python >= 3.11 and make: everything else goes into .venv in this checkout.
# ARGS is passed on: make test ARGS="-k kinesis", make demo ARGS="--events 50000".

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --require-virtualenv

.PHONY: help demo test test-long test-faults lint format bench constraints clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: $(INSTALLED) ## the whole job on this machine, without an AWS account
	@$(BIN)/shipper demo $(ARGS)

test: $(INSTALLED) ## every test but the long ones; what this machine cannot run is listed at the end
	@$(BIN)/pytest -n 2 --dist loadgroup -m "not long" $(ARGS)

test-long: $(INSTALLED) ## the tests that run at full size
	@$(BIN)/pytest -n 2 --dist loadgroup -m long $(ARGS)

# Other schedules each time; a failure prints the seed that repeats it.
test-faults: SHIPPER_FAULT_SEED := $(or $(SHIPPER_FAULT_SEED),$(shell date +%s))
test-faults: ROUNDS ?= 200
test-faults: $(INSTALLED) ## random schedules of faults: make test-faults ROUNDS=200
	@echo "schedules from seed $(SHIPPER_FAULT_SEED) on"
	@SHIPPER_FAULT_SEED=$(SHIPPER_FAULT_SEED) SHIPPER_FAULT_ROUNDS=$(ROUNDS) \
	  $(BIN)/pytest -n 2 --dist loadgroup tests/faults/test_schedules.py $(ARGS)

lint: $(INSTALLED) ## ruff and mypy, for the packages, the benchmarks and the tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/mypy tests

format: $(INSTALLED) ## lets ruff lay out the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(INSTALLED) ## CPU per event beside bare loops of the same work, in about three minutes
	@$(BIN)/python -m benchmarks $(ARGS)

constraints: $(INSTALLED) ## writes constraints.txt from what .venv holds
	@{ sed -n '/^#/p' constraints.txt; $(PIP) freeze --exclude-editable; } > constraints.txt.new
	@mv constraints.txt.new constraints.txt

clean: ## removes .venv and everything that tools have written
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made anew only when what it depends on has changed, so that every other run starts at once.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is not Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV) || { \
	  echo "error: $(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing shipper and its tools into $(VENV) (once; about a minute) ..." >&2
	@$(PIP) install --quiet -c constraints.txt -e '.[all,dev]'
	@touch $@
