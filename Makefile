# make demo: install, run the main study, say where its report is.
# make test: install with the tools of development, then check everything.
# make check: linters, types and the quick tests, for the inner loop.
# make test-slow: what needs heavy libraries beside those of development, which it installs.
# make docs: build the documentation site, run its notebooks, and say where it is.
# make test-other-kernels: the numerical tests once more, with the arithmetic of another processor.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt
OUT ?= runs/progressive_sharpening
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal
# Compares the shapes and types of every call with its annotations: a test takes three times as long.
WITH_SHAPES := --jaxtyping-packages=lossgeom,tests.check

# Workers, and the processes that tests start, would compile all that they import.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo lint check test test-slow test-other-kernels docs format clean

demo: $(VENV)/installed-lab
	$(BIN)/lossgeom run progressive_sharpening --out $(OUT)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint
	$(PYTEST) $(WITH_SHAPES) -m quick tests

test: lint
	$(PYTEST) $(WITH_SHAPES) -m "quick or doctest"
	$(PYTEST) -m "not quick and not slow" tests

test-slow: $(VENV)/installed-slow
	$(PYTEST) -m slow tests

# What rests on the last bit or on one processor's kernels shows itself here, on any processor.
test-other-kernels: $(VENV)/installed-dev
	MKL_CBWR=COMPATIBLE ATEN_CPU_CAPABILITY=default $(PYTEST) tests/linalg tests/curvature

# Their reports, of a few seeds, are the gallery of the site; a run that is finished is kept.
GALLERY := planar_quadratic random_quadratic

# Warnings are errors, links that lead nowhere among them; a second build runs no notebook again.
docs: $(VENV)/installed-docs
	for study in $(GALLERY); do $(BIN)/lossgeom run $$study --seeds 2 --out docs/_build/gallery/$$study || exit 1; done
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --nitpicky --quiet docs docs/_build/html
	$(BIN)/python tools/check_site.py docs/_build/html
	@echo "the site is in docs/_build/html/index.html"

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs docs/_build docs/reference/names

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The stamps make installation happen again only when one of these two files has changed.
$(VENV)/installed-%: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing lossgeom[$*] into $(VENV); the first time takes some minutes"
	$(PIP) --editable '.[$*]'
	touch $@

$(VENV)/installed-slow: $(VENV)/installed-dev
