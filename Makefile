# One command each on a machine with Python 3.11 or newer, git and make. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
SERVER := .venv/.server
SAAS := .venv/.saas
DEV := .venv/.dev
STEP := @bash tests/step.sh
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help install serve say saas web test check bench gpu drill reference clean

help: ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

install: $(SERVER) ## create .venv and install what serving needs

serve: $(SERVER) ## start the server on http://127.0.0.1:8080
	$(BIN)/fishserve serve

TEXT ?= Hello from fishserve.
say: $(SERVER) ## speak TEXT="..." into out.wav
	@$(BIN)/fishserve say "$$TEXT"
export TEXT

saas: $(SAAS) ## a service that sells speech, all of it on this machine: database, bucket, engine, API, app; prints the first user and key
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory web; else echo "without npm there is an API and no app"; fi
	$(BIN)/fishserve saas --embedded

web: ## build the app for people, which `fishserve saas` serves under /app; needs Node 20.19 or newer
	$(STEP) "packages of the app" npm --prefix saas/web ci
	$(STEP) "the app" npm --prefix saas/web run build

test: $(DEV) ## run every check: lint, types, contracts, tests
	@tests/run.sh $(BIN)

drill: $(DEV) reference ## run the slow and destructive checks
	$(BIN)/pytest -m drill

BENCH := $(BIN)/fishserve bench
bench: $(DEV) ## measure this machine, CPU or GPU, in under 10 minutes; the report goes to var/bench/
	$(BENCH) latency -o var/bench/latency.json
	$(BENCH) throughput -o var/bench/throughput.json
	$(BENCH) codec -o var/bench/codec.json
	$(BENCH) roofline -o var/bench/roofline.json
	$(BENCH) report var/bench/latency.json var/bench/throughput.json var/bench/codec.json var/bench/roofline.json

FULL := --checkpoint var/full --device cuda
gpu: $(DEV) var/full/config.json ## prove and measure the CUDA path at the released shape, in about 8 minutes on one GPU; JSON goes to bench/results/
	$(BENCH) frames $(FULL) --streams 1,8,32,64,128 -o bench/results/gpu-frames.json
	$(BENCH) latency $(FULL) --concurrency 1,8,32,64,128 --seconds 15 -o bench/results/gpu-latency.json
	$(BENCH) codec $(FULL) -o bench/results/gpu-codec.json
	$(BENCH) roofline $(FULL) --streams 1,64 -o bench/results/gpu-roofline.json

var/full/config.json: | $(DEV)
	$(BIN)/fishserve random-checkpoint var/full --shape full

reference: .venv-reference/.installed ## a virtual environment with the reference implementation

clean: ## remove everything that was made here
	rm -rf .venv .venv-reference var saas/web/node_modules saas/web/dist .pytest_cache .mypy_cache .ruff_cache .hypothesis out.wav

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; name another with PYTHON=...")'
	$(PYTHON) -m venv .venv

$(SERVER): pyproject.toml constraints.txt | $(BIN)/python
	@echo "torch is large: this takes minutes, once"
	$(STEP) "packages of the server" $(PIP) --editable '.[server]'
	@touch $@

$(SAAS): $(SERVER)
	$(STEP) "packages of the service" $(PIP) --editable '.[embedded]'
	@touch $@

$(DEV): $(SERVER)
	$(STEP) "packages of the tests" $(PIP) --editable '.[dev]'
	@touch $@

.venv-reference/.installed: bench/reference/requirements.txt bench/reference/requirements-no-deps.txt
	$(PYTHON) -m venv .venv-reference
	$(STEP) "packages of the reference" .venv-reference/bin/pip install --requirement bench/reference/requirements.txt
	$(STEP) "the reference" .venv-reference/bin/pip install --no-deps --requirement bench/reference/requirements-no-deps.txt
	rm -rf .venv-reference/lib/python*/site-packages/torchaudio/lib/* # native parts that want a CUDA runtime and are not used
	@touch $@
