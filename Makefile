# Everything runs in .venv, which the first command makes. `make train` is the place to start.
PYTHON ?= python3
BIN := .venv/bin
# Where this is set, as in many containers, each process would compile the libraries anew: 20 s instead of 10.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: train test test-all coverage test-exhaustive check check-style check-types check-types-of-tests check-lowest check-newest docs bench bench-gpu format

train: .venv/installed
	$(BIN)/python -m emotion_lightning.train

# How many `auto` are is in tests/conftest.py.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 6 --dist worksteal

# After each change: what needs no further program, server or kill.
test: .venv/installed
	$(PYTEST) --ignore tests/integration

# What CI runs: these, those of tests/integration, the slow ones, and the examples in docstrings.
test-all: .venv/installed
	$(PYTEST) -m 'not exhaustive' -rs --durations 20
	$(BIN)/python -m pytest --doctest-modules emotion_lightning

# test-all once more, with the lines and branches that it runs. On Python 3.11 that takes half as long again.
coverage: .venv/installed
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -n auto --maxprocesses 6 --dist worksteal -m 'not exhaustive'
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

# The combinations that test-all leaves out.
test-exhaustive: .venv/installed
	$(PYTEST) -m exhaustive

# `make --jobs 2 check` takes half the time on two cores.
check: check-style check-types check-types-of-tests

check-style: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

check-types: .venv/installed
	$(BIN)/mypy

# With a cache of its own, because its settings are others.
check-types-of-tests: .venv/installed
	$(BIN)/mypy --config-file tests/mypy.ini tests benchmarks hydra_plugins docs/hooks.py

# The commands with the lowest versions that pyproject.toml allows, and with the newest that there are; each in an
# environment of its own, made anew.
check-lowest:
	$(PYTHON) -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable '.[mlflow,onnx,tensorboard,tune]'
	.venv-lowest/bin/python tests/helpers/commands_work.py mlflow onnx tensorboard tune

check-newest:
	$(PYTHON) -m venv --clear .venv-newest
	.venv-newest/bin/python -m pip install --quiet --editable .
	.venv-newest/bin/python tests/helpers/commands_work.py

# The documentation site, in site/. A broken link, a page that is in no menu, or a wrong docstring is an error. The
# variable silences the announcement that mkdocs-material is maintained until May 2027.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed
	$(BIN)/python benchmarks/run.py

# The table is written also where a part failed: what the others found stays.
bench-gpu: .venv/installed
	$(BIN)/python benchmarks/gpu.py; code=$$?; $(BIN)/python benchmarks/gpu_table.py && exit $$code

# Anew only when what is asked for changes. Python compiles what is imported; pip would compile 26,000 files first.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $@
