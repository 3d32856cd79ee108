# SPDX-License-Identifier: MIT
# `make demo` and `make check` are all that a newcomer needs; both set up what they use.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON := .venv/bin/python
VENV := .venv/.stamp
# What ships runs on Debian's own Python and Debian's packages; the rest is for tests.
RUNTIME := python3 iproute2 nftables procps
TESTING := python3-venv python3-pyroute2 python3-dbus-next strace gcc libc6-dev linux-libc-dev
BED := qemu-system-x86 mmdebstrap e2fsprogs

PACKAGING := dpkg-dev debhelper dh-python pybuild-plugin-pyproject python3-all python3-setuptools
MACHINES := systemd-container mmdebstrap piuparts

.PHONY: help demo check lint test vm machines system deb man completions bench answers performance topology fuzz soak setup setup-test venv clean

help: ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

demo: setup ## a namespace converges, is sabotaged, heals, and says who did it
	@bash examples/demo.sh

check: lint vm machines test ## install what is needed, then lint, types and every test this machine can run

setup: ## install what linxd itself needs
	@tools/apt-needs $(RUNTIME)

setup-test: setup
	@tools/apt-needs $(TESTING)

venv: $(VENV) ## make .venv with the development tools

$(VENV): pyproject.toml | setup-test
	@echo "making .venv"
	@test -x $(PYTHON) || /usr/bin/python3 -m venv --system-site-packages .venv
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check mypy ruff 'pytest>=8' hypothesis jsonschema
	@touch $@

lint: $(VENV) ## style and types
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --quiet --check .
	@.venv/bin/mypy --no-error-summary linxd examples
	@echo "lint: fine"

test: $(VENV) ## every test that this machine can run; what can't run says why
	@$(PYTHON) -m pytest -q -rs

vm: $(VENV) ## the tests that need a distribution's kernel, in virtual machines: every kind of link, podman's containers
	@if tools/apt-needs --try $(BED) $(PACKAGING); then $(PYTHON) tests/bed/vm.py && $(PYTHON) tests/bed/vm.py --machine podman; \
	else echo "vm: not run: qemu, mmdebstrap or what builds the package can't be had here"; fi

machines: # what boots machines and builds the package for them; without it those tests are skipped
	@tools/apt-needs --try $(MACHINES) $(PACKAGING) || true

system: $(VENV) machines ## the tests under a real systemd: Debian 12 and 13 booted in containers
	@$(PYTHON) -m pytest -q -rs tests/system

deb: ## the Debian package, in dist/
	@tools/apt-needs $(PACKAGING)
	@packaging/build dist

man: ## the manual pages, out of docs/
	@/usr/bin/python3 tools/manpages

completions: ## what shells complete, out of linxctl's parser
	@/usr/bin/python3 tools/completions

bench: setup-test ## figures beside what a user would use instead: make bench QUICK=1 JSON=figures.json
	@/usr/bin/python3 bench/run.py $(if $(QUICK),--quick) $(if $(JSON),--json $(JSON)) $(foreach row,$(ROW),--only $(row))

answers: setup-test ## how long a D-Bus call waits while the daemon is busy
	@/usr/bin/python3 bench/answers.py

performance: ## docs/performance.md and its plots, out of docs/performance/figures.json
	@/usr/bin/python3 bench/report.py

topology: setup ## docs/topology.json and docs/topology.svg, out of the tutorial's files
	@/usr/bin/python3 -m tests.topology.tutorial

fuzz: $(VENV) ## random drifts against a real daemon: make fuzz SEED=7 N=10000
	@tools/fuzz $(if $(SEED),--seed $(SEED)) --drifts $(or $(N),2000)

soak: $(VENV) ## ten scopes under drift for an hour: make soak SOAK_SECONDS=600
	@/usr/bin/python3 -m tests.torture.soak --seconds $(or $(SOAK_SECONDS),3600) $(if $(SEED),--seed $(SEED))

clean: ## remove what was made here
	@rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
