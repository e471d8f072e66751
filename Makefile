# make help lists the targets. A virtual environment is made in $(VENV) by $(PYTHON) where there is none.
PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-output
WORKERS ?= 2

RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip
SOURCES := graphseg tests examples benchmarks
INPUTS := setup.cfg pyproject.toml constraints.txt graphseg/__init__.py

.PHONY: help demo test lint bench coverage format clean
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help:
	@echo "make demo      real photographs to graphs: a table, pictures and a report in $(OUT)/"
	@echo "make test      lint, types and all tests"
	@echo "make bench     benchmarks against other libraries, into benchmarks/results/ (PEERS=python of fast-slic and OpenCV, DATA=folder of sets)"
	@echo "make coverage  tests with line and branch coverage"
	@echo "make format    mends layout and what the linter can mend"
	@echo "make clean     removes $(VENV), caches, builds and $(OUT)"
	@echo "Variables: PYTHON=$(PYTHON) VENV=$(VENV) OUT=$(OUT) WORKERS=$(WORKERS)"

demo: $(VENV)/.installed-viz
	$(RUN) -m examples.demo --out $(OUT)

test: lint
	$(RUN) -m pytest -n $(WORKERS)

lint: $(VENV)/.installed-test
	$(RUN) -m ruff check $(SOURCES)
	$(RUN) -m ruff format --check $(SOURCES)
	$(RUN) -m mypy

bench: $(VENV)/.installed-bench
	$(RUN) -m benchmarks.converters --out benchmarks/results/converters.json
	$(RUN) -m benchmarks.pooling --out benchmarks/results/pooling.json
	$(RUN) -m benchmarks.superpixels --out benchmarks/results/superpixels.json $(if $(PEERS),--peers $(PEERS))
	$(RUN) -m benchmarks.layers --out benchmarks/results/layers.json
	$(RUN) -m benchmarks.merge --out benchmarks/results/merge.json
	$(RUN) -m benchmarks.networks --out benchmarks/results/networks.json
	$(if $(DATA),$(RUN) -m benchmarks.datasets --data $(DATA) --out benchmarks/results/datasets.json)
	$(if $(DATA),$(RUN) -m benchmarks.constructions --data $(DATA))

coverage: $(VENV)/.installed-test
	$(RUN) -m pytest -n $(WORKERS) --cov

format: $(VENV)/.installed-test
	$(RUN) -m ruff check --fix $(SOURCES)
	$(RUN) -m ruff format $(SOURCES)

clean:
	rm -rf $(VENV) $(OUT) build dist graphseg.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
	find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +

$(RUN):
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
		"got Python %d.%d, expected 3.11 to 3.13; name one: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)

# One stamp per extra: pip runs only when an input changed. torch comes first and pinned, so that nothing else chooses it.
$(VENV)/.installed-%: $(INPUTS) | $(RUN)
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e ".[$*]"
	touch $@
