# Nothing is needed but Python >= 3.11 and a package index: each target makes .venv by itself.
PYTHON ?= python3
BIN := .venv/bin
ALL := forge,fleet,openvino,cluster,train,audio,text,docs,test

.PHONY: demo test check bench docs
demo: .venv/demo.stamp  ## the whole loop on a small model that comes with the package
	$(BIN)/edgewise demo
test: .venv/all.stamp  ## every test, doctest and law, with coverage, a file at a time on each core; threads of each would only wait for one another
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --cov --numprocesses auto --dist loadfile --no-loadscope-reorder
check: .venv/all.stamp  ## style, types and import contracts
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
bench: .venv/all.stamp  ## the device's hot path; then other tools, each in an environment of its own
	$(BIN)/python benchmarks/device.py
	$(BIN)/python benchmarks/run.py
docs: .venv/all.stamp  ## build site/; a broken link is an error
	$(BIN)/zensical build --strict

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
.venv/demo.stamp: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --editable '.[forge,fleet]'
	touch $@
.venv/all.stamp: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --editable '.[$(ALL)]'
	touch .venv/demo.stamp $@
