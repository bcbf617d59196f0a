# `make demo` installs into .venv, runs the embedded default and writes its report; `make test` installs and tests.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test install check clean

demo: $(STAMP)
	$(BIN)/python sweep/run.py --config configs/demo.yaml
	$(BIN)/python analysis/shap_report.py --results results/demo
	$(BIN)/python analysis/browse.py --results results/demo

test: check
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 20

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(STAMP)

# installed once; again only if what is required changes
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) build *.egg-info
