# make demo      prune a small network and write its report
# make bench-smoke  all criteria beside the random baseline, on digits (under three minutes)
# make test      run the whole test suite
# make check     lint, check the formatting and the types, and build the documents
# make docs      build the documents as a site: build/site/index.html
# make coverage  trace, cut and verify sixty architectures, and write docs/coverage.md (half an hour)
#                MODELS="tv:resnet18 timm:dla34" instead of the list
#
# make integrations  install ultralytics (AGPL-3.0), lightning, transformers, tensorboard, ray (460 MB with
#                what they need) and run their tests
# make matrix    networks of other packages, installed first (600 MB), checked: docs/matrix.md
#
# Each of them sets up .venv the first time, which takes some minutes.
# PYTHON=/path/to/python3.12 make test    sets up with that interpreter

.DEFAULT_GOAL := help
.PHONY: help setup demo bench-smoke test check docs coverage integrations matrix
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
# What .venv can be made with: the first of these that is recent enough and complete.
PYTHONS := $(or $(PYTHON),python3 python3.11 python3.12 python3.13 python)
SUITABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: setup
	@$(BIN)/python -m randprune demo

bench-smoke: setup
	@$(BIN)/python -m randprune bench smoke

test: setup
	@$(BIN)/python -m pytest

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict src/randprune
	@$(MAKE) docs

# Warnings are errors: a link or an anchor that leads nowhere, a page that no other one leads to.
docs: setup
	@$(BIN)/python -m sphinx -q -W --keep-going -j auto -b html docs build/site
	@echo "The documents are in build/site/index.html"

coverage: setup
	@$(BIN)/python benchmarks/coverage.py $(if $(MODELS),--models $(MODELS)) $(OPTIONS)

# opencv-python would need a screen's libraries, which ultralytics names and does not use here.
.venv/.ultralytics: .venv/.installed
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt \
	  opencv-python-headless polars requests ultralytics-thop
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps ultralytics==8.4.190
	@touch $@

.venv/.trainers: .venv/.installed
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt \
	  lightning transformers tensorboard
	@touch $@

.venv/.ray: .venv/.installed
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[ray]'
	@touch $@

integrations: .venv/.ultralytics .venv/.trainers .venv/.ray
	@$(BIN)/python -m pytest -n 0 tests/integrations tests/executors/test_on_ray.py

matrix: .venv/.ultralytics
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt \
	  segmentation-models-pytorch==0.6.0 monai==1.6.1 transformers==5.24.0
	@$(BIN)/python benchmarks/matrix.py $(OPTIONS)

setup: .venv/.installed

# The stamp is written last, so that an interrupted set-up starts again. A .venv whose interpreter
# is gone or too old is made anew; any other one is kept and brought to the pinned versions.
.venv/.installed: pyproject.toml constraints.txt
	@set -e; found=; \
	if ! $(BIN)/python -c '$(SUITABLE); import pip' 2>/dev/null; then \
	  for python in $(PYTHONS); do \
	    if "$$python" -c '$(SUITABLE)' 2>/dev/null; then found="$$python"; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "randprune needs Python 3.11 or newer with venv; none of these is: $(PYTHONS)." >&2; \
	    echo "Install it (Debian: apt install python3 python3-venv), or name it:" >&2; \
	    echo "  make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
	    exit 1; \
	  fi; \
	  echo "Setting up .venv with $$("$$found" --version). This takes some minutes, once." >&2; \
	  "$$found" -m venv --clear .venv; \
	fi; \
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'; \
	touch $@
