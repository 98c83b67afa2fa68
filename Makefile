# Two commands do all the set-up: `make report` runs the study, `make test` passes the tests.
PYTHON ?= python3
PROFILE ?= laptop
# of the tests: one more than two cores, which wait for browsers and kernels now and then
WORKERS ?= 3
RUN := .venv/bin/python
# many short processes import the same modules: compiled once, whatever the shell says
export PYTHONDONTWRITEBYTECODE =

.PHONY: report readme test lab bench format

report: named .venv/ready
	@$(RUN) -m lib study --profile $(PROFILE)

readme: named .venv/ready
	@$(RUN) -m lib readme

test: named .venv/ready-test
	@$(RUN) -m ruff check lib tests notebooks && $(RUN) -m ruff format --check lib tests && $(RUN) -m pytest -q -n $(WORKERS)

lab: named .venv/ready
	@$(RUN) -m lib lab

bench: named .venv/ready-test
	@$(RUN) -m tests.bench

format: .venv/ready-test
	@$(RUN) -m ruff check --fix lib tests notebooks; $(RUN) -m ruff format lib tests

# a Python that somebody names is that of an environment which is there already, or it is said
.PHONY: named
named:
ifeq ($(origin PYTHON),command line)
	@own='import sys; print(*sys.version_info[:2], sep=".")'; \
	  [ ! -x $(RUN) ] || [ "$$($(PYTHON) -c "$$own")" = "$$($(RUN) -c "$$own")" ] || \
	  { echo ".venv has Python $$($(RUN) -c "$$own"), not that of $(PYTHON); remove it (rm -r .venv) and run this again"; exit 1; }
endif

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
