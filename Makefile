# Two commands: `make demo` and `make test`. Each makes .venv, installs what is missing, says size and time first.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := pyproject.toml CMakeLists.txt constraints.txt $(shell find cpp -name '*.?pp' -not -path '*/fuzz/*' 2>/dev/null)
# A CPU build of torch, where pip can find one; TORCH=torch==2.13.0 takes the default build (gigabytes of CUDA)
TORCH ?= torch==2.13.0+cpu

.PHONY: help demo test lint types bench fuzz clean system simulator browser
help:
	@echo "make demo   install the core, run a market with planted trouble, write a report (first time < 3 min, 0.7 GB)"
	@echo "make test   install everything for tests (2.6 GB), run them all (about 15 min on two cores)"
	@echo "nox -l      single jobs: lint, types, test, bench, fuzz, ..."

demo: $(VENV)/core.stamp
	@$(BIN)/microrisk demo
	@echo; echo "microrisk lies in $(VENV)/bin: . $(BIN)/activate"

test: $(VENV)/dev.stamp
	@PATH="$(abspath $(BIN)):$$PATH" nox --no-venv --non-interactive -s lint types test

lint types bench: $(VENV)/dev.stamp
	@PATH="$(abspath $(BIN)):$$PATH" nox --no-venv --non-interactive -s $@

# clang where there is the right to install it; without it kept inputs and mutations of them run, and that is said
fuzz: $(VENV)/dev.stamp
	@if ! command -v clang++ >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing Debian packages: clang llvm (0.6 GB on disk)"; \
	  apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends clang llvm libclang-rt-dev >/dev/null; \
	fi
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(PIP) install atheris || echo "no atheris for this Python"
	@PATH="$(abspath $(BIN)):$$PATH" nox --no-venv --non-interactive -s fuzz

# Debian packages only when they are missing, and only where there is the right to install them
system:
	@missing=""; \
	command -v c++ >/dev/null || missing="$$missing g++"; \
	command -v $(PYTHON) >/dev/null || missing="$$missing python3"; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing python3-venv"; \
	test -f "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))' 2>/dev/null)/Python.h" || missing="$$missing python3-dev"; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ]; then as=""; elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as="sudo"; else as="no"; fi; \
	  if [ "$$as" = no ] || ! command -v apt-get >/dev/null; then echo "missing:$$missing; install them (Debian, Ubuntu: apt-get install$$missing)"; exit 2; fi; \
	  echo "installing Debian packages:$$missing"; \
	  $$as apt-get update -qq; DEBIAN_FRONTEND=noninteractive $$as apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi; \
	$(PYTHON) -c 'import sys; sys.exit(f"python 3.11 or newer is needed, this is {sys.version.split()[0]}" if sys.version_info < (3, 11) else 0)'

# Icarus, perl and make for the benches of the hardware; without the right to install them those benches say what is missing
simulator:
	@if ! command -v iverilog >/dev/null || ! command -v perl >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing Debian packages: iverilog perl (20 MB)"; \
	    apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends iverilog perl >/dev/null; \
	  else echo "iverilog or perl is missing: apt-get install iverilog perl"; fi; \
	fi

# Debian's Chromium for the tests of the dashboard; without the right to install it they are skipped, and say so
browser:
	@if ! command -v chromium >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing Debian packages: chromium fonts-dejavu-core (113 MB to download, 480 MB on disk)"; \
	    apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; \
	  else echo "chromium is missing: apt-get install chromium"; fi; \
	fi

$(VENV)/core.stamp: $(SOURCES) | system
	@echo "installing the core into $(VENV): about 150 MB to download, 0.7 GB on disk, one to two minutes"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/core.stamp | simulator browser
	@echo "installing what the tests need: about 600 MB to download, 1.9 GB on disk (torch and the hardware tools are most of it), two to four minutes"
	@$(PIP) install "$(TORCH)" || { echo "no CPU build of torch here: taking the default one, gigabytes with its CUDA parts"; $(PIP) install -c constraints.txt torch; }
	@$(PIP) install -c constraints.txt -e '.[dev,hdl,fpga]'
	@touch $@

clean:
	rm -rf $(VENV) build
