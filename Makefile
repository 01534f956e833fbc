# make demo   index the docstrings of the installed scientific packages, and search them
# make serve  search the index of the demo on a page, at http://127.0.0.1:8000
# make test   run all tests
# make docs   build the documentation site in site/
# make lint   check style, format and types (types in the installed package, where adapters/ is hybridsearch.adapters)
# `make test WORKERS=4` runs four tests at a time. The default is three, which keeps two cores busy. Each takes about 2 GB.
# If .venv does not exist, each command makes it. `make PYTHON=python3.12 test` uses another Python.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
WORKERS ?= 3
# Python compiles a module when it is first imported. Most modules of the packages never are.
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

unexport PYTHONDONTWRITEBYTECODE # else programs that tests start compile all modules again

.PHONY: demo serve docs test lint types venv clean

demo: $(VENV)/demo.stamp
	$(VENV)/bin/python examples/demo.py

serve: $(VENV)/demo.stamp | demo-index
	$(VENV)/bin/hybridsearch serve demo=demo-index --judgements demo-judgements --allow-write

demo-index: | $(VENV)/demo.stamp
	$(VENV)/bin/python examples/demo.py

test: $(VENV)/dev.stamp
	$(VENV)/bin/hybridsearch warmup >/dev/null & # else all tests would wait for the compiler at once
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder

docs: $(VENV)/docs.stamp types
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --quiet
	@echo "Open site/index.html"

lint: $(VENV)/dev.stamp types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	cd build/types && $(abspath $(VENV))/bin/mypy --config-file $(abspath pyproject.toml) -p hybridsearch

# Install the package in build/types, for programs that read its sources.
types: | $(VENV)/bin/python
	rm -rf build && $(PIP) --no-deps --target build/types .

venv: $(VENV)/dev.stamp

clean:
	rm -rf $(VENV) demo-index demo-judgements build dist site *.egg-info

# Install an extra again only when the requirements change. `dev` has all that `docs` and `demo` need.
$(VENV)/%.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing hybridsearch[$*] into $(VENV) (a few minutes the first time) ..."
	$(PIP) -e '.[$*]'
	@touch $@ $(if $(filter dev,$*),$(VENV)/docs.stamp $(VENV)/demo.stamp)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
