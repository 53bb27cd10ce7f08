# Nothing is needed beforehand but make and Python >= 3.11. Every target makes or reuses the environment
# $(VENV) and installs only what it needs there.
#
#   make demo     the main job, on real data                 make examples   every example, in order
#   make test     the whole test suite                       make bench      all benchmarks, against peers
#   make lint     formatting, lint, types                    make bench-smoke  the quick ones
#                                                            make bench-gpu    on a GPU: REQUIRE="jax[cuda12]"
#
# PYTHON=...   the interpreter to build the environment with   VENV=...   where the environment lives
# JOBS=...     test processes                                  ARGS=...   more arguments for pytest, demo or bench
# REQUIRE=...  more version requirements, e.g. REQUIRE="jax==0.10.2 jaxlib==0.10.2"

VENV ?= .venv
JOBS ?= 2
ARGS ?=
REQUIRE ?=
PYTHON_CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.13 python3.12 python3.11 python3)
PY := $(VENV)/bin/python

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL: # two pip processes must not write to one environment
.PHONY: help demo test examples lint format coverage bench bench-smoke bench-gpu install-dev clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.with-examples
	$(PY) -u examples/main_job.py $(ARGS)

test: $(VENV)/.with-dev
	$(PY) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

examples: $(VENV)/.with-examples
	@set -e; for example in examples/[0-9]*.py; do \
	  echo "== $$example"; MPLBACKEND=Agg $(PY) -u $$example; \
	done

lint: $(VENV)/.with-dev
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m pyright --pythonpath $(PY)

format: $(VENV)/.with-dev
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

coverage: $(VENV)/.with-dev
	$(PY) -m coverage run -m pytest $(ARGS)
	$(PY) -m coverage report

bench-smoke: $(VENV)/.with-examples
	$(PY) -u -m benchmarks.run --smoke $(ARGS)

bench: $(VENV)/.with-bench
	@status=0; $(PY) -u -m benchmarks.run $(ARGS) || status=$$?; $(PY) -m benchmarks.plots; exit $$status

bench-gpu: $(VENV)/.with-bench
	$(PY) -u -m benchmarks.gpu $(ARGS)

install-dev: $(VENV)/.with-dev

# `.with-EXTRA` says: the package and its extra EXTRA are installed as this pyproject.toml asks.
$(VENV)/.with-%: pyproject.toml | $(VENV)/bin/python
	@echo "Installing nsimplicit[$*] into $(VENV) (the first time downloads JAX: about a minute)"
	$(PY) -m pip install --disable-pip-version-check -e ".[$*]" $(REQUIRE)
	@touch $@

$(VENV)/bin/python:
	@for python in $(PYTHON_CANDIDATES); do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    echo "Creating $(VENV) with $$("$$python" -V)"; \
	    exec "$$python" -m venv --clear $(VENV); \
	  fi; \
	done; \
	echo "No usable Python among: $(PYTHON_CANDIDATES)." >&2; \
	echo "nsimplicit needs Python 3.11 or newer, with its venv module (on Debian: apt install python3-venv)." >&2; \
	echo "Name one with: make PYTHON=/path/to/python3.12 <target>" >&2; \
	exit 1

clean:
	rm -rf .venv .venv-* build dist .pytest_cache .ruff_cache .hypothesis .coverage results
	find nsimplicit tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
