# make demo   the TodoList application with generated traffic, on http://127.0.0.1:8080
# make demo-cluster   the same on PostgreSQL, two servers and three bundles, each a process of its own
# make test   everything that must hold: ruff, mypy, import-linter, pytest
# make chaos  kills at random moments under load, a hundred of each kind instead of a few (EVENTO_CHAOS_ROUNDS)
# make soak   all seven roles under load for ten minutes (EVENTO_SOAK_SECONDS); fails unless memory stays flat
# make bench  the measured comparisons
# make docs   build the documentation site into site/ (a broken link fails)
# make clean  remove what these made (not the demo's data)
#
# Needs Python 3.11 or newer and make; everything else goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo demo-cluster test chaos soak bench docs clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: $(VENV)/.demo
	@exec $(BIN)/evento demo

demo-cluster: $(VENV)/.cluster
	@exec $(BIN)/python -m evento.examples.todolist.cluster $(ARGS)

# Each step names itself, so that the last line says where it stopped.
define step
	@echo "== $(1)"
	@$(2) || { echo "make test: $(1) failed" >&2; exit 1; }
endef

test: $(VENV)/.test
	$(call step,ruff check,$(BIN)/ruff check .)
	$(call step,ruff format,$(BIN)/ruff format --check .)
	$(call step,mypy,$(BIN)/mypy)
	$(call step,import-linter,$(BIN)/lint-imports)
	$(call step,pytest,$(BIN)/python -m pytest -q)
	@echo "make test: all passed"

chaos: $(VENV)/.test
	EVENTO_CHAOS_ROUNDS=$${EVENTO_CHAOS_ROUNDS:-100} $(BIN)/python -m pytest -q tests/chaos

soak: $(VENV)/.test
	$(BIN)/python tests/support/soak.py

bench: $(VENV)/.test
	$(BIN)/python benchmarks/run.py

docs: $(VENV)/.docs
	$(BIN)/zensical build --strict --clean

clean:
	rm -rf $(VENV) build dist site .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# Stamps: what is installed is installed again only when pyproject.toml or this file changes.
$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@echo "== making $(VENV)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "python3 -m venv failed: install the venv module (Debian: apt install python3-venv)" >&2; exit 1; }
	@$(PIP) install --upgrade 'pip>=25.1'  # the first that knows dependency groups
	@touch $@

$(VENV)/.demo: $(VENV)/.venv pyproject.toml Makefile
	@echo "== installing evento-framework[demo] into $(VENV)"
	@$(PIP) install --editable '.[demo]'
	@touch $@

$(VENV)/.cluster: $(VENV)/.demo
	@echo "== installing evento-framework[all] and PostgreSQL into $(VENV)"
	@$(PIP) install --editable '.[all]' --group cluster
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@echo "== installing what the tests and benchmarks need"
	@$(PIP) install --editable '.[all]' --group test --group bench
	@touch $@

$(VENV)/.docs: $(VENV)/.venv pyproject.toml Makefile
	@echo "== installing what the documentation site needs"
	@$(PIP) install --group docs
	@touch $@
