# Each target builds what it needs; nothing has to be installed but Python 3.11 or newer.
PYTHON ?= python3
FLOWERS ?= flowers
VENV := .venv
BIN := $(VENV)/bin
# What running needs, and with it what tests and checks need.
READY := $(VENV)/ready
DEV_READY := $(VENV)/dev-ready
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable

.PHONY: demo test check fix docs bench clean

# Trains on 200 images of flowers in a few minutes.
demo: $(READY)
	rm -rf demo
	mkdir demo
	$(BIN)/alexnet split examples/flowers --out demo/data --val 0.2 --seed 1
	$(BIN)/alexnet train demo/data --variant half-size --epochs 25 --batch-size 16 --out demo/runs
	$(BIN)/alexnet evaluate --model demo/runs/latest --ten-crop --report demo/report.html
	$(BIN)/alexnet predict examples/rose.jpg --model demo/runs/latest
	$(BIN)/alexnet figures demo/runs/latest --out demo/figures
	@echo
	@echo 'Three things to look at:'
	@echo '  demo/report.html               accuracy, confusion matrix and errors, in a browser'
	@echo '  demo/runs/latest/curves.png    loss and accuracy by epoch'
	@echo '  demo/figures/kernels.png       kernels of the first layer'

test: $(DEV_READY)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

check: $(DEV_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(DEV_READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Writes what is generated in docs/; the pictures take three trainings, and the images of
# docs/results.md in the folder FLOWERS.
docs: $(READY)
	$(BIN)/python docs/generate.py
	if [ -d "$(FLOWERS)" ]; then $(BIN)/python -m docs.pictures "$(FLOWERS)" build/docs; \
	else echo 'The pictures were left as they are: give the images with FLOWERS=DIR'; fi

bench: $(DEV_READY)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) demo

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) .
	touch $@

$(DEV_READY): $(READY)
	$(INSTALL) '.[dev]'
	touch $@
