# One command each on a machine with Python 3.11 or newer, git and make. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
SERVER := .venv/.server
SAAS := .venv/.saas
DEV := .venv/.dev
CLUSTER := .venv/.cluster
STEP := @bash tests/step.sh
PIP := $(BIN)/pip install --disable-pip-version-check --constraint constraints.txt

# Without an NVIDIA GPU torch comes as a wheel for CPUs, which is 200 MB instead of gigabytes. TORCH=cuda or TORCH=cpu decides by hand.
# An index of yours (PIP_INDEX_URL, pip.conf) wins, and where PyTorch's index cannot be reached the usual one serves.
TORCH ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: help install serve say saas web test check bench attack gpu gpu-bundle drill clients cluster reference clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | while IFS="$$(printf '\t')" read -r name what; do printf '%-10s %s\n' "$$name" "$$what"; done

install: $(SERVER) ## create .venv and install what serving needs

serve: $(SERVER) ## start the server on http://127.0.0.1:8080
	$(BIN)/fishserve serve

# TEXT reaches the command as it was typed: make must not expand the $ in "It costs $5".
override TEXT := $(if $(filter undefined,$(origin TEXT)),Hello from fishserve.,$(value TEXT))
say: $(SERVER) ## speak TEXT="..." into out.wav
	@$(BIN)/fishserve say "$$FISHSERVE_TEXT"
say: export FISHSERVE_TEXT = $(value TEXT)

saas: $(SAAS) ## a service that sells speech, all of it on this machine: database, bucket, engine, API, app; prints the first user and key
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory web; else echo "without npm there is an API and no app"; fi
	$(BIN)/fishserve saas --embedded

web: ## build the app for people, which `fishserve saas` serves under /app; needs Node 20.19 or newer
	$(STEP) "packages of the app" npm --prefix saas/web ci
	$(STEP) "the app" npm --prefix saas/web run build

test: $(DEV) ## run every check: lint, types, contracts, tests
	@tests/run.sh $(BIN)

drill: $(DEV) reference ## run the slow and destructive checks
	$(STEP) "system packages" bash tests/system.sh
	$(BIN)/pytest -m drill

clients: $(DEV) ## install the clients that people use, each in its own environment, run them against minnow, and write the table of docs/clients.md
	$(STEP) "system packages" bash tests/system.sh
	tests/clients/install.sh
	$(BIN)/python -m tests.clients.run

cluster: $(CLUSTER) ## install Ray Serve and try the cluster: real Ray processes on this machine, killed and upgraded, in about 13 minutes
	$(BIN)/pytest tests/inference/cluster -m 'drill or not drill'

BENCH := $(BIN)/fishserve bench
bench: $(DEV) ## measure this machine, CPU or GPU, in about 10 minutes once installed; the report goes to var/bench/
	$(BENCH) latency -o var/bench/latency.json
	$(BENCH) throughput -o var/bench/throughput.json
	$(BENCH) codec -o var/bench/codec.json
	$(BENCH) roofline -o var/bench/roofline.json
	$(BENCH) report var/bench/latency.json var/bench/throughput.json var/bench/codec.json var/bench/roofline.json

attack: $(DEV) ## attack a server on this machine with what has stopped servers before: make attack URL=http://127.0.0.1:8080, in about 5 minutes
	$(BENCH) attack $(or $(URL),http://127.0.0.1:8080)

FULL := --checkpoint var/full --device cuda
gpu: $(DEV) var/full/config.json ## prove and measure the CUDA path at the released shape, in about 8 minutes on one GPU; JSON goes to bench/results/
	$(BENCH) frames $(FULL) --streams 1,8,32,64,128 -o bench/results/gpu-frames.json
	$(BENCH) latency $(FULL) --concurrency 1,8,32,64,128 --seconds 15 -o bench/results/gpu-latency.json
	$(BENCH) codec $(FULL) -o bench/results/gpu-codec.json
	$(BENCH) roofline $(FULL) --streams 1,64 -o bench/results/gpu-roofline.json

gpu-bundle: $(DEV) ## pack var/gpu-bundle for a machine with a GPU, torch and triton, and no network; PYTHON_VERSION=3.12 is that machine's
	$(BIN)/python -m bench.bundle var/gpu-bundle $(or $(PYTHON_VERSION),3.12)

var/full/config.json: | $(DEV)
	$(BIN)/fishserve random-checkpoint var/full --shape full

reference: .venv-reference/.installed ## a virtual environment with the reference implementation

clean: ## remove everything that was made here
	rm -rf .venv .venv-reference var saas/web/node_modules saas/web/dist .pytest_cache .mypy_cache .ruff_cache .hypothesis out.wav

# Not `python`: an interrupted `python -m venv` leaves that, and no pip. Run again, it adds what is missing.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; name another with PYTHON=...")'
	$(PYTHON) -m venv .venv

$(SERVER): pyproject.toml constraints.txt | $(BIN)/pip
	@echo "installing into .venv; this takes a few minutes once"
	@if [ "$(TORCH)" = cpu ] && [ "$$(uname -s)" = Linux ] && [ -z "$$PIP_INDEX_URL$$PIP_NO_INDEX" ] && \
		! $(BIN)/pip config get global.index-url >/dev/null 2>&1 && ! $(BIN)/python -c 'import torch' 2>/dev/null && \
		$(BIN)/python -c 'import urllib.request; urllib.request.urlopen("$(TORCH_INDEX)/torch/", timeout=5)' 2>/dev/null; then \
		bash tests/step.sh --progress "torch for CPUs" $(PIP) --index-url $(TORCH_INDEX) torch || echo "PyTorch's index failed; the usual one is used"; fi
	$(STEP) --progress "packages of the server" $(PIP) --editable '.[server]'
	@touch $@

$(SAAS): $(SERVER)
	$(STEP) --progress "packages of the service" $(PIP) --editable '.[embedded]'
	@touch $@

$(DEV): $(SERVER)
	$(STEP) --progress "packages of the tests" $(PIP) --editable '.[dev]'
	@touch $@

$(CLUSTER): $(DEV)
	$(STEP) --progress "packages of the cluster" $(PIP) --editable '.[cluster]'
	@touch $@

.venv-reference/.installed: bench/reference/requirements.txt bench/reference/requirements-no-deps.txt
	$(PYTHON) -m venv .venv-reference
	$(STEP) --progress "packages of the reference" .venv-reference/bin/pip install --requirement bench/reference/requirements.txt
	$(STEP) "the reference" .venv-reference/bin/pip install --no-deps --requirement bench/reference/requirements-no-deps.txt
	rm -rf .venv-reference/lib/python*/site-packages/torchaudio/lib/* # native parts that want a CUDA runtime and are not used
	@touch $@
