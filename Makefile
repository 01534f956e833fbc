# make demo   index the docstrings of the installed scientific packages and search them
# make test   the whole test suite
# make lint   style, format and types (of the installed package, where adapters/ is hybridsearch.adapters)
# `make test WORKERS=4` runs as many tests at a time; two are good for two cores.
# Each makes .venv where there is none; `make PYTHON=python3.12 test` takes another interpreter.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
WORKERS ?= 2
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

unexport PYTHONDONTWRITEBYTECODE # the programs that tests start would compile every module anew

.PHONY: demo test lint clean

demo: $(VENV)/demo.stamp
	$(VENV)/bin/python examples/demo.py

test: $(VENV)/dev.stamp
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder

lint: $(VENV)/dev.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	rm -rf build
	$(PIP) --no-deps --target build/types .
	cd build/types && $(abspath $(VENV))/bin/mypy --config-file $(abspath pyproject.toml) -p hybridsearch

clean:
	rm -rf $(VENV) demo-index build dist *.egg-info

# An extra is installed again when the requirements change, and only then.
$(VENV)/%.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing hybridsearch[$*] into $(VENV) (a few minutes the first time) ..."
	$(PIP) -e '.[$*]'
	@touch $@

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
