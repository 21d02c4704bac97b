# make setup | test | test-slow | demo | lint | coverage | fuzz | soak | cuda | links | lock, and setup-export |
# test-export | test-interop | export-matrix | wheel | test-wheel | docs, which have virtual environments of their own.
# Set-up runs by itself when it is missing or out of date.

PYTHON ?= python3.11
VENV := .venv
LOCK := requirements
BIN := $(VENV)/bin
# Files of tests are shared out among the cores, and have a thread each.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --dist loadfile --no-loadscope-reorder
INSTALLED := $(VENV)/.installed
BUILT := $(VENV)/.built
SOURCES := setup.py pyproject.toml $(shell find lite_detr_d2/csrc -type f)
# What is in the tree needs no index, and none of the user's settings for pip.
INSTALL_TREE := PIP_CONFIG_FILE=/dev/null $(BIN)/python -m pip --isolated install --no-build-isolation --no-deps -e .
UV := 0.13.9

# They would bring other packages into $(VENV).
unexport PYTHONPATH PYTHONHOME

.PHONY: setup setup-export test test-slow test-export test-interop export-matrix wheel test-wheel docs links demo lint coverage fuzz soak cuda lock always

setup: $(BUILT)

test: setup
	$(PYTEST)

# What takes minutes, and rarely breaks; each test is for whichever core is free.
test-slow: setup
	$(PYTEST) --dist worksteal -m slow

# What needs the packages of exported files, or users' tools: requirements/export.txt and interop.txt.
setup-export: $(VENV)-export/.installed
test-export test-interop: test-%: $(VENV)-%/.installed
	$(subst $(BIN)/,$(VENV)-$*/bin/,$(PYTEST)) tests/$*

# Every format of every detector: a table. What an earlier run has done is not done again.
export-matrix: $(VENV)-export/.installed
	$(VENV)-export/bin/python tools/export_matrix.py

# The source distribution and its wheel, in dist. FORCE_CUDA=1 gives it CUDA kernels.
wheel: $(VENV)-wheel/.installed
	$(VENV)-wheel/bin/python tools/build_wheel.py

# The wheel in dist beside PyTorch alone, in an environment for each interpreter and each PyTorch: a table. It downloads
# PyTorch as often, and takes an hour.
test-wheel: $(VENV)-wheel/.installed
	$(VENV)-wheel/bin/python tools/wheel_matrix.py

# The documentation as a site, in output/site: open its index.html. A warning is an error.
docs: $(VENV)-docs/.installed
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict

# Whether what the pages link to outside of the project is there. It needs the network.
links: setup
	$(BIN)/python tools/check_links.py

demo: setup
	$(BIN)/python projects/LiteDETR/demo_digits.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict lite_detr_d2
	$(BIN)/lint-imports --no-logo

coverage: setup
	$(BIN)/python -m pytest --cov

# What anybody's data and configs may look like: every case is used in full, repaired and said, or refused; and
# checkpoints with a flipped bit. 6 minutes.
fuzz: setup
	$(BIN)/python tools/fuzz_annotations.py
	$(BIN)/python tools/fuzz_images.py
	$(BIN)/python tools/fuzz_config.py
	$(BIN)/python tools/fuzz_checkpoints.py

# Trainings that are killed 30 times, and one of 2,000 iterations. 20 minutes.
soak: setup
	$(BIN)/python tools/soak.py kills
	$(BIN)/python tools/soak.py long

# The ops with CUDA kernels, also where there is no GPU; TORCH_CUDA_ARCH_LIST chooses the architectures.
cuda: $(INSTALLED)
	FORCE_CUDA=1 $(INSTALL_TREE)
	@! cat lite_detr_d2/_C.build_error.txt 2>/dev/null
	touch $(BUILT)

# Asks at every make, and changes nothing where the virtual environment is whole.
$(INSTALLED): always
	@$(PYTHON) -I tools/setup_venv.py $(VENV) $(LOCK) || { status=$$?; [ $$status -ne 127 ] || \
		echo "There is no $(PYTHON) here: name CPython 3.11, 3.12 or 3.13, as in 'make PYTHON=python3.12 setup'." >&2; \
		exit $$status; }

# Over $(VENV), whose packages and lite_detr_d2 it sees behind its own.
$(VENV)-%/.installed: $(BUILT) always
	@$(PYTHON) -I tools/setup_venv.py $(VENV)-$* $(LOCK)/$*.txt $(VENV)

$(BUILT): $(INSTALLED) $(SOURCES)
	$(INSTALL_TREE)
	touch $@

# Keeps the versions that the lock has where the *.in files allow them; `make lock UPGRADE=--upgrade` takes the newest.
lock:
	scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && $(PYTHON) -m venv "$$scratch" && \
		"$$scratch/bin/pip" install --quiet uv==$(UV) && \
		compile="$$scratch/bin/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
			--generate-hashes" && \
		export UV_CUSTOM_COMPILE_COMMAND="make lock" && \
		$$compile $(UPGRADE) requirements/dev.in --output-file requirements/dev.txt && \
		for name in build export interop docs wheel; do \
			$$compile $(UPGRADE) --constraints requirements/dev.txt requirements/$$name.in \
				--output-file requirements/$$name.txt || exit; \
		done
