# Everything bootstraps itself from Python 3.11, make and git.
#   make demo            run the main example on the emulator, with a real Airflow and a real Ray cluster
#                        (KEEP=1 leaves it running; DAG=example_vertex_ray_train_deploy goes from BigQuery to a prediction)
#   make check           the quick tests, without a real Airflow or Ray
#   make test            all tests but the long ones; AIRFLOW=2.11 for the other Airflow line
#                        (PYTEST_ARGS=… selects tests, JOBS=0 runs them in one process)
#   make soak            the long tests (an hour), with the same PYTEST_ARGS
#   make browser         find the Chromium for the page's tests, or install Debian's package; "make test" runs it first
#   make lint            ruff, codespell, deptry, vulture and mypy
#   make bench           the benchmarks
#   make install         .venv with the provider, the emulator and all development tools
#   make constraints     resolve the tested sets of versions anew

AIRFLOW ?= 3.3.2
PYTHON ?= python3.11
PYTEST_ARGS ?=
JOBS ?= 2
KEEP ?=
DAG ?= example_vertex_ray_shared_cluster

ifeq ($(AIRFLOW),3.3.2)
VENV := .venv
else
VENV := .venv-$(AIRFLOW)
endif
BIN := $(VENV)/bin
CONSTRAINTS := constraints/airflow-$(AIRFLOW).txt
READY := $(VENV)/.ready-$(shell cat pyproject.toml emulator/pyproject.toml $(CONSTRAINTS) 2>/dev/null | cksum | cut -d' ' -f1)

.PHONY: install demo browser check test soak lint bench constraints clean

install: $(READY)

# uv resolves and installs the 280 packages in seconds; pip takes minutes.
$(READY):
	@test -f $(CONSTRAINTS) || { echo "AIRFLOW=$(AIRFLOW): the tested sets are $$(ls constraints)"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "PYTHON=$(PYTHON): Python 3.11 is needed, as on the clusters"; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8'
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c $(CONSTRAINTS) --group dev -e '.[client,emulator,plots]' -e ./emulator
	@touch $@

demo: $(READY)
	$(BIN)/python -m devtools.demo --dag $(DAG) $(if $(KEEP),--keep)

# Airflow 2 has no page. Without Chromium only the page's own tests fail, and say what to install.
browser: $(READY)
ifneq ($(AIRFLOW),2.11)
	-@$(BIN)/python -m devtools.browser
endif

test: $(READY) browser
	$(BIN)/python -m pytest -m "not soak and not compat" -n $(JOBS) --no-loadscope-reorder $(PYTEST_ARGS)

check: $(READY)
	$(BIN)/python -m pytest -m "not ray and not system and not soak and not compat" -n $(JOBS) --no-loadscope-reorder $(PYTEST_ARGS)

soak: $(READY)
	$(BIN)/python -m pytest -m soak $(PYTEST_ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell airflow_provider_vertex_ray emulator tests docs example_dags devtools benchmarks changes *.md Makefile
	$(BIN)/deptry .
	cd emulator && ../$(BIN)/deptry src
	$(BIN)/vulture
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m benchmarks

constraints: $(READY)
	$(BIN)/python -m devtools.constraints

clean:
	rm -rf .venv .venv-* .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
