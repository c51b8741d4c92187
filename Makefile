# `make` builds Tendril and installs it into .venv; `make help` lists the rest. Debian packages
# (scripts/apt-*.txt) and Python packages (pyproject.toml) that are missing are installed first.

PYTHON ?= python3
VENV   := $(CURDIR)/.venv
PY     := $(VENV)/bin/python
PEERS  := $(CURDIR)/.venv-bench
BUILD  := build
, := ,

export PATH := $(VENV)/bin:$(PATH)

C_FILES      = $(shell find src python tests include -name '*.[ch]' 2>/dev/null)
PYTHON_FILES = $(wildcard python/tendril tests tools/check-* tools/count-tests scripts/install-pip \
	demo examples bench)

.DEFAULT_GOAL := all
.PHONY: all demo test test-c test-fuzz test-python sanitize lint lint-format lint-python \
	lint-docs lint-names lint-tidy format bench peers fuzz clean distclean help
.NOTPARALLEL: # ninja and the tests use all cores by themselves

all: ## build, and install package and command into .venv (the default)
all: apt-build pip-run pip-build $(BUILD)/dev/build.ninja
	$(call INSTALL,dev,$(VENV))

demo: ## the job of the README on this machine, with a local S3 server
demo: all pip-demo
	$(PY) -m demo

test: ## every test: C unit tests, simulations, a short fuzz run, Python tests
test: test-c test-fuzz test-python

test-c: apt-build apt-test pip-build $(BUILD)/unit/build.ninja
	@ninja -C $(BUILD)/unit --quiet
	meson test -C $(BUILD)/unit --no-rebuild --print-errorlogs

test-fuzz: apt-build apt-test pip-build
	tests/fuzz/smoke

test-python: all apt-test pip-test
	$(PY) -m pytest --junitxml=$(BUILD)/pytest.xml tests

sanitize: ## C tests under AddressSanitizer with UBSan, then under ThreadSanitizer
sanitize: apt-build apt-test pip-build $(BUILD)/asan/build.ninja $(BUILD)/tsan/build.ninja
	tools/run-sanitized $(BUILD)/asan
	tools/run-sanitized $(BUILD)/tsan

fuzz: ## the fuzz targets for a minute each
fuzz: apt-build apt-test pip-build
	tests/fuzz/smoke 60

lint: ## layout, static analysis, names, layers, documents
lint: lint-format lint-python lint-docs lint-names lint-tidy

lint-format: apt-lint
	@wrong=$$(clang-format --dry-run -Werror $(C_FILES) 2>&1 | sed -n 's/:.*: error:.*//p' | sort -u); \
	    test -z "$$wrong" || { echo "make format would change:" $$wrong; exit 1; }
lint-python: pip-lint
	@ruff check --quiet $(PYTHON_FILES)
	@ruff format --quiet --check $(PYTHON_FILES) || { echo "make format lays them out"; exit 1; }
lint-docs: $(VENV)/.tendril/venv
	@$(PY) tools/check-docs
lint-names: apt-build apt-lint apt-test pip-build $(BUILD)/lint/build.ninja
	@$(PY) tools/check-layers
	@ninja -C $(BUILD)/lint --quiet
	@$(PY) tools/check-names $(BUILD)/lint/libtendril.a
lint-tidy: lint-names
	tools/run-clang-tidy $(BUILD)/lint

format: ## lay out all C and Python files
format: apt-lint pip-lint
	clang-format -i $(C_FILES)
	ruff check --quiet --fix $(PYTHON_FILES) || true
	ruff format --quiet $(PYTHON_FILES)

bench: ## measure beside every peer; ONLY=name measures one case and writes nothing
bench: peers
	$(PEERS)/bin/python -m bench.run

clean: ## remove what was built
	rm -rf $(BUILD) dist .pytest_cache .ruff_cache

distclean: ## remove .venv and .venv-bench too
distclean: clean
	rm -rf $(VENV) $(PEERS)

help: ## this text
	@sed -n 's/^\([a-z-]*\): ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

# -- what has to be there first -------------------------------------------------------------------

apt-%:
	@scripts/install-apt $*

# The note inside a virtual environment tells whether it was made whole.
$(VENV)/.tendril/venv $(PEERS)/.tendril/venv: | apt-build
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Tendril needs Python >= 3.11; $(PYTHON) is $$($(PYTHON) -V 2>&1)." \
	        "Name another one: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(@D:/.tendril=)
	@mkdir -p $(@D) && touch $@

pip-%: $(VENV)/.tendril/venv
	@$(PY) scripts/install-pip $*

# What `make bench` compares with has an environment of its own, with a release build of Tendril.
peers bench $(BUILD)/bench/build.ninja: export PATH := $(PEERS)/bin:$(PATH)
peers: apt-build $(PEERS)/.tendril/venv
	@$(PEERS)/bin/python scripts/install-pip run build bench
	@$(PEERS)/bin/python scripts/install-pip bench-ray || \
	    echo "Ray cannot be installed here; the others are measured without it" >&2
	@$(MAKE) --no-print-directory $(BUILD)/bench/build.ninja
	$(call INSTALL,bench,$(PEERS))

# Modules that were renamed or deleted are removed.
define INSTALL
@ninja -C $(BUILD)/$(1) --quiet
@meson install -C $(BUILD)/$(1) --no-rebuild --quiet
@cd $(2)/lib/python3*/site-packages/tendril && for module in *.py; do \
    test -e $(CURDIR)/python/tendril/$$module || rm $$module; done
endef

# Each use of the C sources has a build folder of its own; ninja keeps it up to date.
SETUP = @log=$$($(2) meson setup $(if $(wildcard $(@D)/build.ninja),--wipe) $(@D) $(1) 2>&1) || \
	{ echo "$$log"; rm -f $@; exit 1; }

$(BUILD)/dev/build.ninja: $(VENV)/.tendril/venv | pip-build
	$(call SETUP,--prefix=$(VENV) -Dpython.install_env=venv -Dpython=enabled -Dtests=disabled)
$(BUILD)/bench/build.ninja: $(PEERS)/.tendril/venv
	$(call SETUP,--prefix=$(PEERS) -Dbuildtype=release -Dpython.install_env=venv -Dpython=enabled \
	    -Dtests=disabled)
$(BUILD)/unit/build.ninja: $(VENV)/.tendril/venv | pip-build
	$(call SETUP,--werror -Dpython=disabled -Dtests=enabled)
$(BUILD)/lint/build.ninja: $(VENV)/.tendril/venv | pip-build
	$(call SETUP,--werror -Dpython=enabled -Dtests=enabled,CC=clang)
$(BUILD)/asan/build.ninja: $(VENV)/.tendril/venv | pip-build
	$(call SETUP,-Db_sanitize=address$(,)undefined -Dpython=disabled -Dtests=enabled)
$(BUILD)/tsan/build.ninja: $(VENV)/.tendril/venv | pip-build
	$(call SETUP,-Db_sanitize=thread -Dpython=disabled -Dtests=enabled)
