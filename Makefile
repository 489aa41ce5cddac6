# Each target builds what it needs; nothing has to be installed but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: demo test check fix docs bench clean

# Trains on 200 photographs of flowers in a few minutes.
demo: $(READY)
	rm -rf demo
	mkdir demo
	$(BIN)/alexnet split examples/flowers --out demo/data --val 0.2 --seed 1
	$(BIN)/alexnet train demo/data --epochs 25 --batch-size 16 --learning-rate 0.003 --out demo/runs
	$(BIN)/alexnet evaluate --model demo/runs/latest --ten-crop
	$(BIN)/alexnet predict examples/rose.jpg --model demo/runs/latest

test: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/python docs/generate.py

bench: $(READY)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) demo

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
