# Two commands do all the set-up: `make report` runs the study, `make test` passes the tests.
PYTHON ?= python3
PROFILE ?= laptop
# of the tests, one a core
WORKERS ?= 2
RUN := .venv/bin/python
# many short processes import the same modules: compiled once, whatever the shell says
export PYTHONDONTWRITEBYTECODE =

.PHONY: report readme test lab bench format

report: .venv/ready
	@$(RUN) -m lib study --profile $(PROFILE)

readme: .venv/ready
	@$(RUN) -m lib readme

test: .venv/ready-test
	@$(RUN) -m ruff check lib tests notebooks && $(RUN) -m ruff format --check lib tests && $(RUN) -m pytest -q -n $(WORKERS)

lab: .venv/ready
	@$(RUN) -m lib lab

bench: .venv/ready-test
	@$(RUN) -m tests.bench

format: .venv/ready-test
	@$(RUN) -m ruff check --fix lib tests notebooks; $(RUN) -m ruff format lib tests

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "creating the environment in .venv (once; some minutes, most of it PyTorch)"
	@[ -e .venv ] || new=1; $(PYTHON) -m venv .venv || { [ -z "$$new" ] || rm -rf .venv; exit 1; }

.venv/ready: .venv/bin/pip pyproject.toml constraints.txt
	@$(RUN) -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/ready-test: .venv/bin/pip pyproject.toml constraints.txt
	@$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@ .venv/ready
