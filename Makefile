# The two commands are `make run` and `make test`; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST_ARGS ?= -n auto
# Workers fill the cores: more BLAS threads would only spin and wait for each other.
PYTEST := OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -W error

# PyTorch is large, so what needs it has an environment of its own, with all of the other one too.
TORCH_VENV := .venv-torch
TORCH_BIN := $(TORCH_VENV)/bin
TORCH_INSTALLED := $(TORCH_VENV)/.installed
TORCH_PYTEST := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(TORCH_BIN)/pytest -W error
# Ray and the HTTP server, with the client that they are tested with.
SERVE_VENV := .venv-serve
SERVE_BIN := $(SERVE_VENV)/bin
SERVE_INSTALLED := $(SERVE_VENV)/.installed
# The engines that spu-ir is compared with; DeepSparse is of another time, and apart.
BENCH_VENV := .venv-bench
BENCH_BIN := $(BENCH_VENV)/bin
BENCH_INSTALLED := $(BENCH_VENV)/.installed
PYTHON311 ?= python3.11
DEEPSPARSE_VENV := .venv-deepsparse
DEEPSPARSE_INSTALLED := $(DEEPSPARSE_VENV)/.installed
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --no-deps

.PHONY: help run test slow test-export test-train test-serve lint lint-torch lint-serve format lit bench \
	bench-compare bench-deepsparse bench-scaling wheel clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(INSTALLED) ## semantic search with the real MiniLM, compiled to INT8 (ARGS="--json" for machines)
	$(BIN)/python examples/search.py $(ARGS)

test: lint lit ## everything that must pass before a commit: ruff, pyright, lit, pytest
	$(PYTEST) -m "not (slow or export or train or serve)" $(PYTEST_ARGS)

slow: $(INSTALLED) ## the tests of whole models, of the wheel and of the documentation
	$(PYTEST) -m "slow and not (export or train or serve)" $(PYTEST_ARGS)

test-export: lint-torch ## models that PyTorch exports, compiled and compared; in .venv-torch
	$(TORCH_PYTEST) -m export $(PYTEST_ARGS)

test-train: lint-torch ## training with pruned weights; in .venv-torch
	$(TORCH_PYTEST) -m train $(PYTEST_ARGS)

test-serve: lint-serve ## batch jobs on Ray and the HTTP server; in .venv-serve
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(SERVE_BIN)/pytest -W error -m serve test/serve

lint: $(INSTALLED) ## ruff, formatting and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

lint-torch: $(TORCH_INSTALLED) ## pyright on the files that import PyTorch
	$(TORCH_BIN)/pyright --project requirements/pyright-torch.json --pythonpath $(TORCH_BIN)/python

lint-serve: $(SERVE_INSTALLED) ## pyright on the files that import the HTTP server
	$(SERVE_BIN)/pyright --project requirements/pyright-serve.json --pythonpath $(SERVE_BIN)/python

format: $(INSTALLED) ## let ruff format and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lit: $(INSTALLED) ## FileCheck tests of dialects and passes
	$(BIN)/lit -v test/filecheck

bench: $(INSTALLED) ## the sparse kernel's speed on this machine
	$(BIN)/python -m benchmarks.spu_matmul $(ARGS)

bench-compare: $(BENCH_INSTALLED) ## spu-ir beside OpenVINO, ONNX Runtime and DeepSparse; in .venv-bench
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BENCH_BIN)/python -m benchmarks.compare $(ARGS)

bench-scaling: $(INSTALLED) ## how time grows with batch, sparse multiply-accumulates and real length
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.scaling $(ARGS)

bench-deepsparse: $(DEEPSPARSE_INSTALLED) ## install DeepSparse for it: evaluation only, needs Python 3.11

wheel: $(INSTALLED) ## build a wheel into dist/
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean: ## remove everything that these commands made
	rm -rf $(VENV) $(TORCH_VENV) $(SERVE_VENV) $(BENCH_VENV) $(DEEPSPARSE_VENV)
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --no-deps: the lock is the whole list, see its head. The stamp is last, so a broken install is redone.
define environment
	@requirements/check.sh $(PYTHON)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP_INSTALL) $(patsubst %,-r %,$(filter %.txt,$^))
	$(@D)/bin/python $(PIP_INSTALL) --no-build-isolation -e .
	@touch $@
endef

$(INSTALLED): requirements/lock.txt pyproject.toml
	$(environment)

$(TORCH_INSTALLED): requirements/lock.txt requirements/torch.txt pyproject.toml
	$(environment)

$(SERVE_INSTALLED): requirements/lock.txt requirements/serve.txt pyproject.toml
	$(environment)

$(BENCH_INSTALLED): requirements/lock.txt requirements/bench.txt pyproject.toml
	$(environment)

$(DEEPSPARSE_INSTALLED): requirements/deepsparse.txt
	$(PYTHON311) -m venv $(DEEPSPARSE_VENV)
	$(DEEPSPARSE_VENV)/bin/python $(PIP_INSTALL) -r requirements/deepsparse.txt
	@touch $@
