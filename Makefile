# Everything runs in .venv, made here from the lock. Paths are relative, so the clone may lie in a folder with spaces.

PYTHON ?= python3
DATA ?= sample_data
PROFILE ?= quick
TORCH ?= cuda
JOBS ?= 2
QUICK ?=
BENCH ?= $(if $(QUICK),--quick)

SHELL := /bin/sh
.DEFAULT_GOAL := help

# Somebody's other environment must not leak into this one.
unexport VIRTUAL_ENV CONDA_PREFIX PYTHONHOME PYTHONPATH PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
PIP := $(BIN)/uv pip
LOCK := $(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --quiet -o requirements.txt

# Without a GPU: the same lock without CUDA's libraries, and PyTorch from its index of CPU builds.
WITHOUT_CUDA := awk '/^[A-Za-z0-9]/ { kept = !/^(torch|torchvision|triton|cuda-[a-z]*|nvidia-[a-z0-9-]*)==/ } kept' requirements.txt
CPU_TORCH = $$(sed -n 's/^\(torch==[^ ]*\).*/\1/p; s/^\(torchvision==[^ ]*\).*/\1/p' requirements.txt)

# A value as one word of the shell, whatever is in it.
quoted = '$(subst ','\'',$(1))'

BENCHMARKS := preparation loading training inference serving "serving --batch"

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

# An environment is tied to the folder it was made in: a clone that was moved or copied makes its own.
ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
MOVED := again
endif

.PHONY: help env run test browser check soak bench lab notebooks lock docs clean again without-cuda

help: ## say what there is
	@echo "MEDIC: medical image classification, from pixels to endpoint"
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'
	@echo
	@echo "  Any of them makes what it needs. PYTHON=python3.12 names another interpreter for env."

env: $(READY) ## make .venv from the lock, when something changed (TORCH=cpu: without CUDA, about a third of the size)

without-cuda:
	@$(WITHOUT_CUDA)

$(READY): requirements.txt pyproject.toml $(MOVED)
	@$(call quoted,$(PYTHON)) -c '$(NEW_ENOUGH)' 2>/dev/null || { \
		echo "make: MEDIC needs Python 3.11 or newer, and '$(PYTHON)' is" \
			"$$($(call quoted,$(PYTHON)) --version 2>&1 | head -1);" \
			"install one, or name it: make PYTHON=python3.12 env" >&2; exit 1; }
	@if [ -f $(READY) ] && [ "$$(cat $(READY))" != "$$(pwd -P)" ]; then rm -rf $(VENV); fi
	@rm -f $(READY)
	@$(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null \
		&& { [ -x $(BIN)/uv ] || $(BIN)/python -m pip --version >/dev/null 2>&1; } || { \
		echo "making $(VENV)"; rm -rf $(VENV); \
		$(call quoted,$(PYTHON)) -m venv $(VENV) || { rm -rf $(VENV); \
			echo "make: '$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; }
	@[ -x $(BIN)/uv ] || $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		"$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.txt)"
	@echo "installing the lock into $(VENV)"
ifeq ($(TORCH),cpu)
	@$(WITHOUT_CUDA) > $(VENV)/without-cuda.txt
	@$(PIP) sync --python $(BIN)/python --require-hashes $(VENV)/without-cuda.txt
	@$(PIP) install --python $(BIN)/python --no-deps --torch-backend cpu $(CPU_TORCH)
else
	@$(PIP) sync --python $(BIN)/python --require-hashes requirements.txt
endif
	@$(PIP) install --python $(BIN)/python --quiet --no-deps -e .
	@pwd -P > $(READY).part && mv $(READY).part $(READY)

run: $(READY) ## run every notebook on DATA (sample_data) with PROFILE (quick); ends with outputs/index.html
	@$(BIN)/medic run --data $(call quoted,$(DATA)) --profile $(call quoted,$(PROFILE))

test: $(READY) ## run all tests, those of the notebooks and of the browser too
	@$(MAKE) --no-print-directory -s browser || true
	$(BIN)/python -m pytest -n $(JOBS) --dist loadscope -m "not soak" --durations 0 --durations-min 4

browser: ## install Chromium for the browser tests, where it is missing (as root, with apt)
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing Chromium for the browser tests"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null && exit 0; fi; \
	echo "make: the browser tests need Chromium; as root: apt-get install -y chromium" >&2; exit 1

check: $(READY) ## lint and the fast tests (tests/fast), in about a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadscope tests/fast

soak: $(READY) ## the long forms: over 10,000 hostile requests, a minute of load (some 3 minutes)
	$(BIN)/python -m pytest -q -s --show-capture=no -m soak

bench: $(READY) ## measure speed, renew docs/benchmarks.md (hours; QUICK=1: a minute each, into outputs)
	@set -e; for bench in $(BENCHMARKS); do \
		echo "== $$bench"; set -- $$bench; name=$$1; shift; $(BIN)/python benchmarks/$$name.py "$$@" $(BENCH); done
	$(if $(QUICK),,$(BIN)/python benchmarks/measure.py)

lab: $(READY) ## open JupyterLab on the notebooks
	$(BIN)/python -m jupyterlab --notebook-dir=code

notebooks: $(READY) ## execute the notebooks in place on the sample, as they are committed
	$(BIN)/python tests/notebooks/standard.py --execute code/0*_*/[0-9]*.ipynb

lock: $(READY) ## compile requirements.txt from pyproject.toml again
	$(LOCK)

docs: $(READY) ## build the documentation site into docs/_build/html
	@rm -rf docs/_build && mkdir -p docs/_build/source/code docs/_build/source/docs
	@cp docs/conf.py docs/_build/source/ && cp -r docs/*.md docs/_static docs/_build/source/docs/
	@cp -r image docs/_build/source/ && cp -r code/0*_* docs/_build/source/code/
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs/_build/source docs/_build/html
	@printf '<meta http-equiv="refresh" content="0; url=docs/index.html">\n' > docs/_build/html/index.html
	@echo docs/_build/html/index.html

clean: ## remove what was made here: outputs, the built documentation, caches (not .venv)
	rm -rf outputs docs/_build .pytest_cache .ruff_cache
	find code tests -name __pycache__ -type d -prune -exec rm -rf {} +
