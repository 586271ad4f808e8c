# Everything a person does with a checkout. The virtual environment is kept; stamps in it make a second call instant.

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
DEMO_IMAGE ?= examples/scene_0.jpg
DEMO_INSTRUCTION ?= Find the bird.
DEMO_OUTPUT ?= demo_output
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
HAS_PIP := $(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	echo "setup: $(VENV) has no working pip; remove that folder and call make again" >&2; exit 1; }
CORE := $(VENV)/.lisaseg-core
DEV := $(VENV)/.lisaseg-dev

# Handed over by the environment, so that quotes and dollars in them stay what they are.
export DEMO_IMAGE DEMO_INSTRUCTION DEMO_OUTPUT

.DELETE_ON_ERROR:
.PHONY: help setup demo test lint format constraints clean

help: ## Say what there is (the default)
	@echo "make TARGET [VARIABLE=value ...]"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile
	@echo "Variables:"
	@echo "  PYTHON=$(PYTHON)  the Python, 3.11 or newer, that makes $(VENV)"
	@echo "  TORCH_INDEX=      one more package index for torch; https://download.pytorch.org/whl/cpu spares a"
	@echo "                    Linux machine without an NVIDIA GPU gigabytes of CUDA"
	@echo "  DEMO_IMAGE=$(DEMO_IMAGE)  DEMO_INSTRUCTION='$(DEMO_INSTRUCTION)'"
	@echo "  PYTEST_ARGS=      more arguments for pytest, such as '-k prompts'"

setup: $(CORE) ## Install lisaseg in .venv

demo: $(CORE) ## Ask the bundled model about one picture
	@test -f "$$DEMO_IMAGE" || { echo "demo: there is no picture $$DEMO_IMAGE; name one with DEMO_IMAGE=..." >&2; exit 1; }
	$(BIN)/lisaseg segment "$$DEMO_IMAGE" "$$DEMO_INSTRUCTION" --out "$$DEMO_OUTPUT"
	@name=$$(basename "$$DEMO_IMAGE"); echo "The picture with its mask: $$DEMO_OUTPUT/$${name%.*}_overlay.png"

test: $(DEV) ## Run the tests
	$(BIN)/python -m pytest -q $(PYTEST_ARGS)

lint: $(DEV) ## Check style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/ty check
	$(BIN)/lint-imports

format: $(DEV) ## Sort imports and lay out the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

constraints: ## Write constraints.txt anew from the newest releases that pyproject.toml allows, keeping torch
	@sh -eu -c 'folder=$$(mktemp -d); trap "rm -rf $$folder" EXIT; \
	torch=$$(sed -n "s/^torch==/torch==/p" constraints.txt); \
	$(PYTHON) -m venv "$$folder/venv"; \
	"$$folder/venv/bin/pip" install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$$torch"; \
	"$$folder/venv/bin/pip" install --quiet -e ".[all,dev]"; \
	sed -n "/^#/p" constraints.txt > "$$folder/new"; \
	"$$folder/venv/bin/pip" freeze --all --exclude pip --exclude-editable \
	| sed -E "/^(nvidia-|cuda-|triton)/d; s/^(torch==[^+]*)\+.*/\1/" >> "$$folder/new"; \
	cp "$$folder/new" constraints.txt'

clean: ## Remove the virtual environment and what runs left behind
	rm -rf "$(VENV)" "$(DEMO_OUTPUT)" .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "setup: '$(PYTHON)' was not found; install Python 3.11 or newer, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "setup: lisaseg needs Python 3.11 or newer, but $(PYTHON) is $$("$(PYTHON)" -V 2>&1);" \
			"name another: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "setup: $(PYTHON) lacks venv or pip; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv "$(VENV)"

$(CORE): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing lisaseg in $(VENV); the first time this takes a few minutes."
	@$(HAS_PIP)
	$(PIP_INSTALL) --editable .
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing lisaseg with its extras and the developers' tools in $(VENV)."
	@$(HAS_PIP)
	$(PIP_INSTALL) --editable '.[all,dev]'
	@touch $@ $(CORE)
