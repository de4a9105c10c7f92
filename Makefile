# Two commands matter: `make demo` trains on a real YARN on this machine, `make test` runs every test.
# Both set up all that they need. What is slow to fetch or build is kept in the user's cache folder.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CACHE := $(or $(TONY_CACHE_DIR),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tony)
LOCK_HASH := $(shell sha256sum requirements/tensorflow.lock | cut -c1-16)
TENSORFLOW := $(CACHE)/environments/tensorflow-$(LOCK_HASH)
# Certificates of this machine, not those that uv brings: behind a company proxy only these are right.
export UV_SYSTEM_CERTS := true
export TONY_TENSORFLOW_PYTHON := $(TENSORFLOW)/bin/python
# The same environment once Horovod is in it. The wheel's folder names all that it was built from.
export TONY_TEST_HOROVOD_PYTHON := $(TONY_TENSORFLOW_PYTHON)
version = $(shell sed -n 's/^$(1)==\([^ ]*\).*/\1/p' requirements/$(2).lock)
HOROVOD_WHEEL := $(CACHE)/wheels/horovod-$(call version,horovod,horovod-source)-tf$(call version,tensorflow-cpu,tensorflow)
HOROVOD := $(TENSORFLOW)/.horovod-$(shell cat requirements/horovod*.lock | sha256sum | cut -c1-16)
# Airflow and what tony needs, once per lock file; on top of it this checkout's own environment with the project in it.
AIRFLOW := $(CACHE)/environments/airflow-$(shell sha256sum requirements/airflow.lock | cut -c1-16)
AIRFLOW_VENV := build/airflow

.PHONY: help
help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: demo
demo: setup java $(TENSORFLOW)/.complete  ## train on a real one-machine YARN and show the result
	@examples/demo.sh $(BIN)/tony $(TONY_TENSORFLOW_PYTHON)

.PHONY: test
test: setup java docker torch horovod  ## all tests: pure, processes, real YARN, Airflow
	@code=0; \
	$(BIN)/python -m pytest $(PYTEST_ARGS) || code=$$?; \
	$(MAKE) --no-print-directory test-airflow || code=$$?; \
	exit $$code

.PHONY: test-unit test-process test-faults test-cluster test-airflow
test-unit: setup  ## the pure tests, in seconds
	$(BIN)/python -m pytest tests/unit $(PYTEST_ARGS)
test-process: setup torch horovod  ## real processes on this machine
	$(BIN)/python -m pytest tests/process tests/contract $(PYTEST_ARGS)
test-faults: setup  ## the short part of the fault matrix, on this machine
	$(BIN)/python -m pytest tests/faults $(PYTEST_ARGS)
test-cluster: setup java docker horovod  ## a real YARN on this machine
	$(BIN)/python -m pytest tests/cluster $(PYTEST_ARGS)

# Not among the tests of the development environment (setup.cfg: norecursedirs): Airflow has one of its own.
test-airflow: setup java horovod  ## the Airflow provider in a real Airflow, on a real YARN
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info >= (3, 11))'; then \
	  echo "SKIPPED tests/airflow: Airflow's own providers need Python 3.11 or newer, and $(BIN)/python is" \
	    "$$($(BIN)/python -c 'import platform; print(platform.python_version())')"; \
	else \
	  $(MAKE) --no-print-directory airflow; \
	  $(AIRFLOW_VENV)/bin/python -m pytest tests/airflow $(PYTEST_ARGS); \
	fi

.PHONY: bench
bench: setup java torch  ## measure beside the peers; half an hour on a quiet machine
	$(BIN)/python benchmarks/launch.py
	$(BIN)/python benchmarks/packaging.py
	$(BIN)/python benchmarks/footprint.py
	$(BIN)/python benchmarks/control_plane.py --executors 1000
	$(BIN)/python benchmarks/control_plane.py --executors 10000 --runs 1 --beats 3
	$(BIN)/python benchmarks/recovery.py

.PHONY: pictures
pictures: setup  ## draw the pictures of docs/gradients.md again, from the kept results
	$(BIN)/uv run --quiet --no-project --with 'matplotlib>=3.8,<4' --python $(BIN)/python python -m benchmarks.gradients.plot

.PHONY: lint
lint: setup  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: types
types: setup  ## type checks
	$(BIN)/mypy tony appmaster executor

.PHONY: generated
generated: setup  ## write again what is generated: protocol stubs, default settings
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. tony/protocol/appmaster.proto
	$(BIN)/python -m tony.config.document > conf/tony-default.yaml

.PHONY: setup
setup: $(VENV)/.complete  ## the development environment in .venv

$(VENV)/.complete: requirements/dev.lock setup.cfg setup.py
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON). Run: sudo apt-get install -y python3 python3-venv"; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV) || { echo "Run: sudo apt-get install -y python3-venv"; exit 1; }
	@[ -x $(BIN)/uv ] || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements/dev.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

# Debian packages: installed when this user may, else the one line to run is printed.
.PHONY: java
java:
	@if ! command -v java >/dev/null || ! command -v mvn >/dev/null; then \
	  line="apt-get install -y --no-install-recommends openjdk-17-jre-headless maven"; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -q && DEBIAN_FRONTEND=noninteractive $$line; \
	  else echo "Java or Maven is missing. Run: sudo $$line"; exit 1; fi; fi

# Only for the Docker tests, which start the engine themselves, as root, and else say why they skip.
.PHONY: docker
docker:
	@if ! command -v dockerd >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends docker.io; fi

# Only for the PyTorch tests, which say so when they skip.
.PHONY: torch
torch:
	@if ! /usr/bin/python3 -c 'import torch' 2>/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends python3-torch >/dev/null \
	  || echo "python3-torch cannot be installed; the PyTorch tests will be skipped"; fi

# The environment of the TensorFlow examples: 1.4 GB, once per lock file.
$(TENSORFLOW)/.complete: | setup
	rm -rf $(TENSORFLOW)
	$(BIN)/uv venv --quiet --python $(BIN)/python $(TENSORFLOW)
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(TONY_TENSORFLOW_PYTHON) requirements/tensorflow.lock
	@touch $@

# Horovod beside it: built from its sources once (two minutes), for as long as TensorFlow stays the same.
.PHONY: horovod
horovod: $(HOROVOD)  ## the environment of the examples with Horovod in it

$(HOROVOD): $(TENSORFLOW)/.complete
	@folder=$(HOROVOD_WHEEL)-$$($(TONY_TENSORFLOW_PYTHON) -c 'import sys; print("cp%d%d" % sys.version_info[:2])'); \
	requirements/build_horovod.sh $(BIN)/uv $(TONY_TENSORFLOW_PYTHON) $$folder; \
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(TONY_TENSORFLOW_PYTHON) --no-deps --require-hashes \
	  -r requirements/horovod.lock; \
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(TONY_TENSORFLOW_PYTHON) --no-deps $$folder/*.whl
	@touch $@

# 300 MB, once per lock file.
$(AIRFLOW)/.complete: | setup
	rm -rf $(AIRFLOW)
	$(BIN)/uv venv --quiet --python $(BIN)/python $(AIRFLOW)
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(AIRFLOW)/bin/python requirements/airflow.lock
	@touch $@

# The project goes into an environment of this checkout, so that the kept one stays as its lock file says.
.PHONY: airflow
airflow: $(AIRFLOW_VENV)/.complete  ## an environment with Airflow and the provider, in build/airflow

$(AIRFLOW_VENV)/.complete: $(AIRFLOW)/.complete setup.cfg setup.py
	rm -rf $(AIRFLOW_VENV)
	$(BIN)/uv venv --quiet --python $(BIN)/python $(AIRFLOW_VENV)
	echo $(AIRFLOW)/lib/python*/site-packages > $$(echo $(AIRFLOW_VENV)/lib/python*/site-packages)/airflow-environment.pth
	$(BIN)/uv pip install --quiet --python $(AIRFLOW_VENV)/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: clean
clean:  ## remove what was built here; caches stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
