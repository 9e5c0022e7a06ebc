# make demo | make test | make setup: each sets up all it needs on a fresh Debian or Ubuntu machine.
#
# Python packages go into .venv beside this file, with the versions of constraints.txt. QEMU, gcc and,
# for the tests, clang and OpenOCD come from apt, only where they are missing; that is the one step that wants root.

PYTHON ?= python3
BIN := .venv/bin
VIEW := build/typecheck
SETUP := .venv/.ready
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
PACKAGES := strop compiler host targets runtime firmware

.PHONY: demo test setup system peers check format clean

demo: setup system
	$(BIN)/strop demo

test: setup system peers check
	$(BIN)/python -m pytest -n 2 --dist worksteal

setup: $(SETUP)

$(SETUP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'strop needs Python 3.11 or later: make PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(SUDO) apt-get install -y python3-venv
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# program:package,package of each that may be missing; what comes second is for the tests only.
system: NEEDS = qemu-system-riscv32:qemu-system-misc qemu-system-arm:qemu-system-arm gcc:gcc,libc6-dev
peers: NEEDS = clang:clang ld.lld:lld openocd:openocd

system peers:
	@missing=; for need in $(NEEDS); do \
	  command -v $${need%%:*} >/dev/null || missing="$$missing $$(echo $${need#*:} | tr , ' ')"; done; \
	[ -z "$$missing" ] || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -y -q --no-install-recommends $$missing; }

# The folders as the package they are installed as, so that mypy sees what users import.
check: setup
	$(BIN)/ruff check .
	@mkdir -p $(VIEW)/strop
	@ln -sfn $(addprefix $(CURDIR)/,$(filter-out strop,$(PACKAGES))) $(VIEW)/strop/
	@ln -sf $(CURDIR)/strop/* $(VIEW)/strop/
	MYPYPATH=$(VIEW) $(BIN)/mypy --strict -p strop

format: setup
	$(BIN)/ruff check --fix-only .

clean:
	rm -rf .venv build runs *.egg-info
