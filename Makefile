# make demo   index the docstrings of the installed scientific packages and search them
# make test   the whole test suite
# make docs   the documentation site, in site/
# make lint   style, format and types (of the installed package, where adapters/ is hybridsearch.adapters)
# `make test WORKERS=4` runs as many tests at a time; two are good for two cores.
# Each makes .venv where there is none; `make PYTHON=python3.12 test` takes another interpreter.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
WORKERS ?= 2
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

unexport PYTHONDONTWRITEBYTECODE # the programs that tests start would compile every module anew

.PHONY: demo docs test lint clean

# The package as it is installed, for the programs that read its sources.
installed = rm -rf build && $(PIP) --no-deps --target build/types .

demo: $(VENV)/demo.stamp
	$(VENV)/bin/python examples/demo.py

test: $(VENV)/dev.stamp
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder

docs: $(VENV)/docs.stamp
	$(installed)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --quiet
	@echo "Open site/index.html"

lint: $(VENV)/dev.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(installed)
	cd build/types && $(abspath $(VENV))/bin/mypy --config-file $(abspath pyproject.toml) -p hybridsearch

clean:
	rm -rf $(VENV) demo-index build dist site *.egg-info

# An extra is installed again when the requirements change, and only then.
$(VENV)/%.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing hybridsearch[$*] into $(VENV) (a few minutes the first time) ..."
	$(PIP) -e '.[$*]'
	@touch $@

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
