# Everything bootstraps itself from Python 3.11, make and git.
#   make demo            run the main example on the emulator, with a real Airflow and a real Ray cluster
#                        (KEEP=1 leaves it running; DAG=example_vertex_ray_train_deploy goes from BigQuery to a prediction)
#   make check           the quick tests, without a real Airflow or Ray
#   make test            all tests but the long ones; AIRFLOW=2.11 for the other Airflow line
#                        (PYTEST_ARGS=… selects tests, JOBS=0 runs them in one process)
#                        (AIRFLOW=3.1 PYTHON=python3.13: the unit tests on another set of constraints/)
#   make soak            the long tests (an hour), with the same PYTEST_ARGS
#   make compat          every line of Airflow and Python, and sets like Cloud Composer's; prints the table of the docs
#                        (COMPAT=… names sets and options)
#   make browser         find the Chromium for the page's tests, or install Debian's package; "make test" runs it first
#   make lint            ruff, codespell, deptry, vulture and mypy
#   make docs            the documentation as a site, in build/docs; warnings are errors
#   make bench           the benchmarks; BENCH="imports leases" for some of them
#   make install         .venv with the provider, the emulator and all development tools
#   make constraints     resolve the tested sets of versions anew

AIRFLOW ?= 3.3.2
PYTHON ?= python3.11
PYTEST_ARGS ?=
# Processes of the tests: one with the real Airflows, one with the real Rays, the others with what mostly waits.
JOBS ?=
KEEP ?=
DAG ?= example_vertex_ray_shared_cluster

COMPAT ?=

# Where this is set, each of Airflow's and Ray's many processes compiles all that it imports, and keeps nothing of it.
unexport PYTHONDONTWRITEBYTECODE

# The two sets on which everything is tested have Python 3.11 and the emulator; the others have environments of their
# own, which devtools/compat.py makes.
WHOLE := $(and $(filter 3.3.2 2.11,$(AIRFLOW)),$(filter python3.11,$(notdir $(PYTHON))))
VENV := $(if $(filter 2.11,$(AIRFLOW)),.venv-2.11,.venv)
BIN := $(VENV)/bin
CONSTRAINTS := constraints/airflow-$(AIRFLOW).txt
READY := $(VENV)/.ready-$(shell cat pyproject.toml emulator/pyproject.toml $(CONSTRAINTS) 2>/dev/null | cksum | cut -d' ' -f1)
DOCS_READY := .venv-docs/.ready-$(shell cat constraints/docs.txt 2>/dev/null | cksum | cut -d' ' -f1)

.PHONY: install demo browser check test soak compat lint docs bench constraints clean

install: $(READY)

# uv does not read pip's configuration, so an index that is configured for pip alone is handed on.
UV_INDEX = index=$${UV_DEFAULT_INDEX:-$${UV_INDEX_URL:-$${PIP_INDEX_URL:-$$($(PYTHON) -m pip config get global.index-url 2>/dev/null)}}}; \
	if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi;

# uv resolves and installs the 280 packages in seconds; pip takes minutes.
$(READY):
	@test -n "$(WHOLE)" || { echo "AIRFLOW=$(AIRFLOW) PYTHON=$(PYTHON): Airflow 3.3.2 or 2.11 and python3.11 are needed"; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8'
	$(UV_INDEX) \
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c $(CONSTRAINTS) \
	  --group dev -e '.[client,emulator,plots]' -e ./emulator
	@touch $@

demo: $(READY)
	$(BIN)/python -m devtools.demo --dag $(DAG) $(if $(KEEP),--keep)

# Airflow 2 has no page. Without Chromium only the page's own tests fail, and say what to install.
browser: $(READY)
ifneq ($(AIRFLOW),2.11)
	-@$(BIN)/python -m devtools.browser
endif

ifneq ($(WHOLE),)
test: $(READY) browser
	$(BIN)/python -m pytest -m "not soak and not compat" -n $(or $(JOBS),4) --no-loadscope-reorder $(PYTEST_ARGS)
else
test:
	$(MAKE) install AIRFLOW=3.3.2 PYTHON=python3.11
	$(UV_INDEX) .venv/bin/python -m devtools.compat airflow-$(AIRFLOW)-$(notdir $(PYTHON))
endif

compat: $(READY)
	$(UV_INDEX) $(BIN)/python -m devtools.compat $(COMPAT)

check: $(READY)
	$(BIN)/python -m pytest -m "not ray and not system and not soak and not compat" -n $(or $(JOBS),6) --no-loadscope-reorder $(PYTEST_ARGS)

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
	$(BIN)/mypy tests/decorators/typed_dag.py

# An environment of its own: the site needs nothing of what it describes. The variable turns off an advertisement.
$(DOCS_READY):
	$(PYTHON) -m venv --clear .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check -r constraints/docs.txt
	@touch $@

docs: $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict
	@echo "build/docs; to read it: python3 -m http.server --bind 127.0.0.1 --directory build/docs"

bench: $(READY)
	$(UV_INDEX) $(BIN)/python -m benchmarks $(BENCH)

constraints: $(READY)
	$(UV_INDEX) $(BIN)/python -m devtools.constraints

clean:
	rm -rf .venv .venv-* .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
