# `make demo` and `make test` each work on a fresh clone: they need Python 3.11 or newer, and a package index in reach.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PLUGINS := $(sort $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml)))
PROJECTS := pyproject.toml $(PLUGINS:=/pyproject.toml)
ZOO := $(BIN)/python -m zoo

# The Python to make .venv with: `make test PYTHON=/path/to/python3.12`. Left out: the first that is new enough.
PYTHON ?=
# Processes of the test run. Each keeps to one thread, or torch would start as many as there are cores in every one.
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal --durations=40 --durations-min=5
PIP := $(BIN)/python -m pip --disable-pip-version-check $(if $(CI),--no-color)
PIP_INSTALL := $(PIP) install $(if $(CI),--progress-bar off)

.PHONY: help install test test-all test-faults lint types format docs demo demo-push clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1 \2/' | \
	  while read -r name text; do printf 'make %-11s %s\n' "$$name" "$$text"; done

install: $(STAMP) ## Make .venv with zoo, its plugins and the developer's tools

# Core and its plugins go in together, in one command: each finds the others here, and no index is asked for them.
$(STAMP): $(PROJECTS)
	@echo "Installing into $(VENV); the first time takes some minutes, most of them for torch."
	@if ! $(BIN)/python -c "" 2>/dev/null; then \
	  for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14 python); do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	      found=$$candidate; break; \
	    fi; \
	  done; \
	  if [ -z "$${found:-}" ]; then \
	    echo "make: no Python 3.11 or newer found$(if $(PYTHON), ($(PYTHON) is none))." >&2; \
	    echo "make: install one, or name it: make $(or $(MAKECMDGOALS),install) PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	  fi; \
	  "$$found" -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }; \
	fi
	$(PIP_INSTALL) --quiet --upgrade "pip>=25.1"
	$(PIP_INSTALL) $(if $(CI),--quiet) --group dev --editable . $(foreach plugin,$(PLUGINS),--editable ./$(plugin))
	@touch $@

test: lint types ## Check style and types, run the tests (docs included); some minutes
	$(PYTEST) -m "not heavy"

test-all: lint types ## The same with the heavy tests
	$(PYTEST)

# Quick and heavy ones, from anywhere under tests/. A page gets the table with: make test-faults FAULTS_PAGE=docs/reliability.md
test-faults: $(STAMP) ## Kill runs, fill disks, cut connections, feed rubbish; print what became of each
	$(PYTEST) -m faults $(if $(FAULTS_PAGE),--faults-page=$(FAULTS_PAGE)) $(if $(FAULTS_LOG),--faults-log=$(FAULTS_LOG))

lint: $(STAMP) ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## Check types
	$(BIN)/mypy

format: $(STAMP) ## Put the code into its style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP) ## Build the documentation site into site/; warnings are errors (the tests build it as well)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "The site: $(CURDIR)/site/index.html; with search: $(BIN)/mkdocs serve"

# Ten handwritten digits that no run has trained on, one of each class.
define DIGITS
import sys
from pathlib import Path
from zoo.data import DataOptions
from zoo.data.sources.digits import listing
folder, digits = Path(sys.argv[1]), listing("digits", DataOptions())
folder.mkdir(parents=True)
for item in reversed(digits.splits["test"]):
    (folder / f"{item.label}.png").write_bytes(digits.reader.read(item.locator))
endef
export DIGITS

# Both runs see the same 50 images (10 of them choose the epoch), 13 times, and report on the same 360.
# Five images of each class are where starting from somebody's weights pays.
demo: DATA := --dataset digits --train-per-class 5
demo: OUT := runs/demo
demo: export HF_HUB_OFFLINE := 1
demo: $(STAMP) ## Adapt a small backbone offline, look at it from all sides, compare with training from scratch
	rm -rf $(OUT)
	$(ZOO) plan resnet_nano $(DATA) --probe-epochs 3 --epochs 10
	$(ZOO) adapt resnet_nano $(DATA) --probe-epochs 3 --epochs 10 --out $(OUT)/adapted
	$(ZOO) eval $(OUT)/adapted
	@$(BIN)/python -c "$$DIGITS" $(OUT)/images
	$(ZOO) predict $(OUT)/adapted $(OUT)/images --top 2
	$(ZOO) adapt resnet_nano $(DATA) --strategy scratch --epochs 13 --out $(OUT)/scratch
	$(ZOO) runs $(OUT)
	@test -s $(OUT)/adapted/report.html
	@echo "The report: $(CURDIR)/$(OUT)/adapted/report.html"

# A Hub on 127.0.0.1 stands in for the real one; it and its folder are gone afterwards.
demo-push: $(STAMP) ## Push the demo's run to a Hub on this machine, and load it back
	@test -f runs/demo/adapted/run.json || $(MAKE) demo
	@place=$$(mktemp -d); \
	$(BIN)/python -u -m tests.hub --root "$$place/hub" --user me --token hf_demo > "$$place/address" & server=$$!; \
	trap 'kill $$server 2>/dev/null; wait $$server 2>/dev/null || true; rm -rf "$$place"' EXIT; \
	for _ in $$(seq 300); do [ -s "$$place/address" ] && break; sleep 0.1; done; \
	. "$$place/address"; export HF_HUB_OFFLINE=0 HF_HOME="$$place/home" NO_PROXY=127.0.0.1; \
	echo "A Hub on this machine: $$HF_ENDPOINT"; \
	$(ZOO) push runs/demo/adapted me/digits; \
	echo "With plain timm:"; \
	$(BIN)/python -c "$$PLAIN_TIMM" me/digits runs/demo/images; \
	echo "With zoo:"; \
	$(ZOO) predict hf-hub:me/digits runs/demo/images --top 2; \
	echo "The server is stopped; with a token of yours: zoo push runs/demo/adapted ACCOUNT/digits"

# What somebody without zoo does.
define PLAIN_TIMM
import sys
from pathlib import Path
import timm
from PIL import Image
model = timm.create_model(f"hf-hub:{sys.argv[1]}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
for path in sorted(Path(sys.argv[2]).iterdir()):
    logits = model(transform(Image.open(path).convert("RGB"))[None])
    print(path.name, "is a", model.pretrained_cfg["label_names"][logits.argmax()])
endef
export PLAIN_TIMM

clean: ## Remove .venv, caches, builds and the demo's runs
	rm -rf $(VENV) runs/demo site build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
