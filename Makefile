# Everything is installed into .venv, once: again only when pyproject.toml or constraints.txt changed.
# PYTHON=/path/to/python chooses an interpreter; by default the first of 3.11 or later that runs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup lint format test test-fast demo clean

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BROWSER := $(VENV)/.browser
POSTGRES := $(VENV)/.postgres
PYTHONS := python3 python3.11 python3.12 python3.13

# apt NAME...: installs Debian packages as root or through sudo; says what is missing where there is no apt-get.
# library FILE NAME: installs the package of a shared library that the wheels expect and slim images lack.
define APT
apt() {
	if ! command -v apt-get >/dev/null; then
		echo "no apt-get here: please install $$* by hand" >&2
		return 1
	fi
	local root=(env DEBIAN_FRONTEND=noninteractive)
	if [ "$$(id -u)" != 0 ]; then root=(sudo "$${root[@]}"); fi
	echo "installing $$* with apt-get" >&2
	"$${root[@]}" apt-get update -qq >&2
	"$${root[@]}" apt-get install -y -qq --no-install-recommends "$$@" >&2
}
library() {
	$(BIN)/python -c "import ctypes; ctypes.CDLL('$$1')" 2>/dev/null || apt "$$2"
}
endef

help:  ## Show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do
		printf '  make %-10s %s\n' "$$name" "$$what"
	done

setup: $(READY)  ## Install everything into .venv

lint: $(READY)  ## Check style and types
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## Put the code in the project's format
	@$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(READY) $(BROWSER) $(POSTGRES)  ## Run all tests, a file at a time on each core
	@$(BIN)/pytest -n auto --dist loadfile

test-fast: $(READY)  ## Run the tests that need neither minutes, servers nor a browser
	@$(BIN)/pytest -n auto --dist loadfile -m 'not slow and not servers and not browser'

demo: $(READY)  ## Simulate three places, train, watch twenty nights
	@$(BIN)/tilewatch demo

clean:  ## Remove what was installed and cached; the workspace stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	@$(APT)
	usable() { "$$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
	has_venv() { "$$1" -c 'import ensurepip, venv' 2>/dev/null; }
	python=
	for name in $(or $(PYTHON),$(PYTHONS)); do
		if usable "$$name"; then python=$$name; break; fi
	done
	if [ -z "$$python" ]; then
		echo "none of $(or $(PYTHON),$(PYTHONS)) is Python 3.11 or later: install one, or name it: make PYTHON=/path/to/python" >&2
		exit 1
	fi
	if ! usable $(BIN)/python || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then
		if ! has_venv "$$python"; then
			version=$$("$$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
			apt "$$version-venv"
		fi
		"$$python" -m venv --clear $(VENV)
	fi
	echo "installing into $(VENV): a few minutes the first time" >&2
	$(BIN)/python -m pip install --disable-pip-version-check -qq --progress-bar off -e '.[dev]' -c constraints.txt
	library libexpat.so.1 libexpat1
	library libstdc++.so.6 libstdc++6
	touch $@

$(BROWSER): $(READY)
	@$(APT)
	if { command -v chromium >/dev/null || apt chromium; } && library libatomic.so.1 libatomic1; then
		touch $@
	else
		echo "without chromium on the PATH, the tests of the pages in a browser are skipped" >&2
	fi

$(POSTGRES): $(READY)
	@$(APT)
	if compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || apt postgresql; then
		touch $@
	else
		echo "without PostgreSQL, the tests of it are skipped" >&2
	fi
