# Fast: `make help` lists the targets. Every target installs what it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
ARGS ?=

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## /{printf "  \033[36m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install what is missing (apt and pip, into .venv) and build; quick if nothing is missing
	@scripts/setup.sh

.PHONY: build
build: setup ## Compile the eBPF objects, the libbpf extension and fast-cni
	@$(MAKE) --no-print-directory compile

# The native parts. Each is built again only if its sources are newer. scripts/setup.sh ends with this.
OBJECTS := src/fast/datapath/bpf/objects
BPF_OBJECTS := $(patsubst bpf/%.bpf.c,$(OBJECTS)/%.bpf.o,$(wildcard bpf/*.bpf.c))
BPF_CFLAGS := -O2 -g -target bpf -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Ibpf \
	-I/usr/include/$(shell uname -m)-linux-gnu

.PHONY: compile
compile: $(BPF_OBJECTS) build/fast-cni $(OBJECTS)/.extension

$(OBJECTS)/%.bpf.o: bpf/%.bpf.c $(wildcard bpf/lib/*.h)
	@mkdir -p $(@D)
	clang $(BPF_CFLAGS) -c $< -o $@

build/fast-cni: $(wildcard cni-plugin/*.c cni-plugin/*.h)
	@mkdir -p $(@D)
	musl-gcc -static -Os -std=c11 -Wall -Wextra -Werror -s -o $@ $(filter %.c,$^)

$(OBJECTS)/.extension: src/fast/datapath/bpf/build_libbpf.py setup.py
	@mkdir -p $(@D)
	$(BIN)/python setup.py -q build_ext --inplace
	@touch $@

.PHONY: demo
demo: setup ## Run the quick start on this machine: two nodes, four pods, real eBPF
	@$(BIN)/python scripts/demo $(ARGS)

.PHONY: test
test: setup ## Run every test (unit, kernel, e2e)
	@$(PYTEST) tests/unit tests/kernel tests/e2e $(ARGS)

.PHONY: test-unit
test-unit: setup ## Run the unit tests only: no root, no kernel
	@$(PYTEST) tests/unit $(ARGS)

.PHONY: test-kernel
test-kernel: setup ## Run the tests against the real kernel (root)
	@$(PYTEST) tests/kernel $(ARGS)

.PHONY: test-e2e
test-e2e: setup ## Run the tests on whole clusters on this machine (root)
	@$(PYTEST) tests/e2e $(ARGS)

.PHONY: test-model
test-model: setup ## Search longer for races in address management (EXAMPLES=2000)
	@FAST_MODEL_EXAMPLES=$(or $(EXAMPLES),2000) $(PYTEST) tests/unit/ipam/test_model.py tests/unit/ipam/test_races.py --timeout=0 $(ARGS)

.PHONY: test-crash
test-crash: setup ## Kill agents, controller and API server at random under churn of 200 pods for 3 minutes (root)
	@FAST_CRASH_SECONDS=180 FAST_CRASH_PODS=200 $(PYTEST) tests/e2e/test_crash.py --timeout=0 -s $(ARGS)

.PHONY: bench
bench: setup ## Compare Fast with alternatives (takes minutes). One part: bench-datapath, -ipam, -cni, -apiserver
	@for part in datapath cni ipam apiserver; do $(MAKE) --no-print-directory bench-$$part || exit 1; done

.PHONY: bench-cost
bench-cost: setup ## Measure what each check costs per packet (root)
	@$(BIN)/python bench/datapath/cost.py $(ARGS)

.PHONY: bench-storm
bench-storm: setup ## Measure what a dropped packet, its counters, its event and a listener cost (root)
	@$(BIN)/python bench/datapath/storm.py $(ARGS)

.PHONY: bench-datapath bench-cni bench-ipam bench-apiserver
bench-datapath bench-cni bench-ipam bench-apiserver: bench-%: setup
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@$(BIN)/python $(firstword $(wildcard bench/$*/bench.py bench/$*/load.py)) $(ARGS)

.PHONY: generate
generate: build ## Write the generated files: Python from C, CRDs, CNI versions, tables of the docs
	@$(BIN)/python scripts/generate.py

.PHONY: check
check: setup ## Lint, types, layers, formatting, prose, stale generated files; print the longest functions
	@$(BIN)/ruff check .
	@$(BIN)/ruff check -q --preview --select PLR0917 src playground scripts
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/clang-format --dry-run --Werror $(wildcard bpf/*.c bpf/lib/*.h cni-plugin/*.c cni-plugin/*.h)
	@$(BIN)/yamllint --strict deploy .yamllint.yaml
	@$(BIN)/python scripts/generate.py --check
	@$(BIN)/python scripts/prose.py
	@$(BIN)/python scripts/longest.py

.PHONY: fmt
fmt: setup ## Format Python and C
	@$(BIN)/ruff check --fix-only -q . ; $(BIN)/ruff format -q .
	@$(BIN)/clang-format -i $(wildcard bpf/*.c bpf/lib/*.h cni-plugin/*.c cni-plugin/*.h)

.PHONY: wheels
wheels: build ## Build the wheels of fast and fast-playground (dist/)
	@scripts/wheels.sh $(ARGS)

.PHONY: pictures
pictures: setup ## Draw the pictures of the docs from their text (docs/pictures/*.d2)
	@for picture in docs/pictures/*.d2; do $(BIN)/d2 -l elk --theme 0 --pad 40 --omit-version $$picture $${picture%.d2}.svg 2>/dev/null || exit 1; chmod 644 $${picture%.d2}.svg; done

.PHONY: image
image: build ## Build the container image and its bill of materials (build/fast-image.tar, .cdx.json); needs no registry
	@$(BIN)/python scripts/image $(ARGS)

.PHONY: lock
lock: setup ## Write requirements/*.txt from the pyproject.toml files (pinned and hashed)
	@scripts/lock.sh

.PHONY: clean
clean: ## Take down playgrounds, remove build products and the virtual environment
	@if [ -x $(BIN)/fast-ctl ]; then $(BIN)/fast-ctl playground down --all || true; fi
	rm -rf build dist $(VENV) $(OBJECTS) src/fast/datapath/bpf/_libbpf* src/*.egg-info playground/build \
	  playground/src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
