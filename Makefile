# `make study` and `make test` do all the set-up they need; nothing is installed twice.
SHELL := /bin/bash
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(SUPPORTED)' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
INSTALLED := .venv/installed
STUDY ?= quick
TRITONS := 3.5.0 3.6.0 3.8.0  # oldest supported, that of PyTorch 2.10 and 2.11, newest
ABLATE ?= $(BIN)/ablate
LOWEST := .venv-lowest
LOWEST_TESTS := tests/ops/test_registry.py tests/ops/test_equation.py tests/hosts tests/models/test_models.py \
	tests/data tests/tasks/test_detection.py tests/tasks/test_segmentation.py tests/tasks/test_real_maps.py \
	tests/tasks/test_initial.py tests/tasks/test_official_dense.py tests/tasks/test_frozen.py \
	tests/training/test_training.py tests/results tests/store tests/test_conf.py tests/compose tests/launch
CARRIED := hydra-core omegaconf submitit cloudpickle pycocotools  # what GPU images with PyTorch usually lack
CARRIED_PYTHON ?= 3.12
WHEELHOUSE := build/wheelhouse
LOWEST_TESTS += tests/docs  # the site with the lowest Sphinx, MyST-NB and theme

.PHONY: help study study-gpu test test-lowest slurm soak lint format figures notebooks docs aot wheelhouse clean
.DEFAULT_GOAL := help

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

study: $(INSTALLED)  ## run the study `quick` and report it (STUDY=name for another)
	@$(BIN)/ablate train study=$(STUDY) hydra/launcher=local
	@$(BIN)/ablate report $(STUDY)

study-gpu: $(if $(filter $(BIN)/%,$(ABLATE)),$(INSTALLED))  ## the study `quick` with ten seeds and thirty epochs, on a card
	@$(ABLATE) train study=quick study.name=quick_gpu seed=0,1,2,3,4,5,6,7,8,9 recipe.epochs=30 \
		hydra/launcher=local infra.device=cuda
	@$(ABLATE) report quick_gpu

test: $(INSTALLED)  ## run the whole test suite
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto --dist=worksteal

test-lowest:  ## run the part of it that meets other libraries, with the lowest versions in pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: Python 3.11, 3.12 or 3.13 is needed and none was found"; exit 1; }
	@test -x $(LOWEST)/bin/pip || $(PYTHON) -m venv --clear $(LOWEST)
	@$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check packaging
	@$(LOWEST)/bin/python tests/lowest.py > $(LOWEST)/lowest.txt
	@echo "installing the lowest versions into $(LOWEST): PyTorch and its CUDA libraries are about 3 GB to download"
	@$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' \
		--constraint $(LOWEST)/lowest.txt
	@OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest $(LOWEST_TESTS) --numprocesses=auto --dist=worksteal
	@$(LOWEST)/bin/python tests/lowest.py --passed

slurm: $(INSTALLED)  ## inject faults into four SLURMs of one node each, started and stopped by the tests (root)
	@$(BIN)/python -m pytest tests/slurm --slurm --numprocesses=4 --dist=worksteal

soak: $(INSTALLED)  ## strike a study with random faults for ten minutes (SOAK="--minutes 60 --seed 1 --slurm")
	@$(BIN)/python -m tests.soak $(SOAK)

lint: $(INSTALLED)  ## check style, formatting, types, the layers of the packages and the prose
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest --quiet tests/test_prose.py

format: $(INSTALLED)  ## format, and fix what can be fixed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

figures: $(INSTALLED)  ## regenerate every committed figure and table from experiments/*/results.csv
	@for script in analysis/*.py; do $(BIN)/python $$script || exit 1; done

notebooks: $(INSTALLED) .venv/notebooks  ## execute the notebooks into build/notebooks
	@mkdir -p build/notebooks
	@for notebook in notebooks/*.py; do \
		$(BIN)/jupytext --to ipynb --execute --output build/notebooks/$$(basename $$notebook .py).ipynb $$notebook || exit 1; done
	@$(BIN)/jupyter nbconvert --to html build/notebooks/*.ipynb

docs: $(INSTALLED)  ## build the site into build/docs, the notebooks executed, warnings as errors
	@$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --nitpicky --quiet docs build/docs
	@echo "build/docs/index.html"

aot: $(INSTALLED)  ## compile all Triton kernels with every supported Triton into tests/kernels/aot (an hour)
	@for version in $(TRITONS); do \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
			--target build/triton/$$version triton==$$version && \
		PYTHONPATH=build/triton/$$version $(BIN)/ablate bench kernels --aot --golden || exit 1; done

wheelhouse: $(INSTALLED)  ## gather the wheels that a GPU machine without a network lacks into build/wheelhouse
	@mkdir -p $(WHEELHOUSE)
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(WHEELHOUSE) \
		--constraint constraints.txt antlr4-python3-runtime
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
		--python-version $(CARRIED_PYTHON) --dest $(WHEELHOUSE) --constraint constraints.txt $(CARRIED)
	@ls $(WHEELHOUSE)
	@echo "there: python3 -m pip install --no-index --no-deps --target site $(WHEELHOUSE)/*.whl"
	@echo "       PYTHONPATH=site:src python3 -m ablate bench acceptance"
	@echo "       PYTHONPATH=site:src make study-gpu ABLATE='python3 -m ablate'"

clean:  ## remove the environment and what tools left behind; runs stay
	rm -rf .venv .venv-lowest build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf docs/generated
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11, 3.12 or 3.13 is needed and none was found"; \
		echo "  → install one, or name it: make PYTHON=/path/to/python3.12 ..."; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv || { rm -rf .venv; \
		echo "  → on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "installing into .venv: PyTorch and its CUDA libraries are about 3 GB to download"
	@$(BIN)/python -m pip install --disable-pip-version-check --editable '.[dev]' --constraint constraints.txt
	@touch $@

.venv/notebooks: $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[notebooks]' --constraint constraints.txt
	@touch $@
