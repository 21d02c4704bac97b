# make setup | test | demo | lint | coverage | cuda | lock. Set-up runs by itself when it is missing or out of date.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BUILT := $(VENV)/.built
SOURCES := setup.py pyproject.toml $(shell find lite_detr_d2/csrc -type f)

.PHONY: setup test demo lint coverage cuda lock

setup: $(BUILT)

test: setup
	$(BIN)/python -m pytest

demo: setup
	$(BIN)/python projects/LiteDETR/demo_digits.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict lite_detr_d2

coverage: setup
	$(BIN)/python -m pytest --cov

# The ops with CUDA kernels, also where there is no GPU; TORCH_CUDA_ARCH_LIST chooses the architectures.
cuda: $(INSTALLED)
	FORCE_CUDA=1 $(BIN)/python -m pip install --no-build-isolation --no-deps -e .
	@! cat lite_detr_d2/_C.build_error.txt 2>/dev/null
	touch $(BUILT)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# detectron2's wheel is tagged for CPython 3.10, and its Python code runs on later versions: pip puts it there when it is
# told that it installs for 3.10. Its declared requirements are older than its code; dev.txt holds those that it has.
$(INSTALLED): requirements/dev.txt requirements/detectron2.txt | $(BIN)/python
	$(BIN)/python -m pip install --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --upgrade --no-deps --require-hashes -r requirements/detectron2.txt \
		--python-version 3.10 --implementation cp --abi none --only-binary=:all: \
		--target "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	touch $@

$(BUILT): $(INSTALLED) $(SOURCES)
	$(BIN)/python -m pip install --no-build-isolation --no-deps -e .
	touch $@

lock: $(BIN)/python
	$(BIN)/python -m pip install pip-tools==7.6.2
	$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url \
		--no-emit-find-links --no-emit-trusted-host --output-file requirements/dev.txt requirements/dev.in
