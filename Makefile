# make demo       installs, then vocodes bundled speech with the bundled voice
# make test       installs, then runs the tests
# make test-fast  runs those that take less than two minutes together, for work in progress
# make test-tf1   runs the tests under TensorFlow 1.15, if a Python 3.7 is found
# make test-tf1-fast   runs the quick ones of these, and those about what differs there
# make lint       checks style, imports and types: ruff and mypy, as pyproject.toml says
# make clean      removes what the commands above made
#
# They install into .venv and .venv-tf1. PYTHON=python3.12 chooses the Python, VENV=DIR the folder.
#
# The versions are those of constraints.txt. It has lines for Python 3.7 and for 3.10 and newer; an
# optional part that it does not name comes in the version that pip chooses. With CONSTRAINTS= (empty)
# everything comes in the newest version that the requirements allow, into .venv-newest and
# .venv-tf1-newest: `make test CONSTRAINTS=`.

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
VENV ?= .venv$(if $(CONSTRAINTS),,-newest)
VENV_TF1 ?= .venv-tf1$(if $(CONSTRAINTS),,-newest)
PY := $(VENV)/bin/python
PIP_INSTALL := $(PY) -m pip install --quiet $(CONSTRAINTS:%=--constraint %)
DEMO_NAMES := auth-incorrect demo-thanks queue-youarenext tt-weasels

# TensorFlow keeps memory of what a process has run, and a laptop has 8 GB: so the tests run in parts,
# two at a time. Those that take longest come first.
TEST_PARTS := tests/training tests/train tests/library tests/interop tests/model tests/commands
tests/training: TESTS = tests/training
tests/train: TESTS = tests/test_train.py tests/test_hop_training.py
tests/model: TESTS = tests --ignore-glob=tests/*/* --ignore-glob=tests/test_[a-f]* \
    --ignore=tests/test_train.py --ignore=tests/test_hop_training.py
tests/commands: TESTS = tests --ignore-glob=tests/*/* --ignore-glob=tests/test_[g-z]*
tests/library: TESTS = tests/bench tests/datasets tests/metrics tests/playground tests/synthesis \
    tests/vocoding
tests/interop: TESTS = tests/interop
# of the jobs that a caller's -j allows, else of two
RUN_PARTS = $(MAKE) $(if $(findstring -j,$(MAKEFLAGS)),,-j2) --output-sync=target --keep-going \
    --no-print-directory $(TEST_PARTS)

.PHONY: demo test test-fast test-tf1 test-tf1-fast lint clean $(TEST_PARTS)

demo: $(VENV)/installed
	$(PY) inference.py --lc $(DEMO_NAMES:%=samples/wavs/%.wav) --out_dir=demo \
	    --plot=demo/spectrograms.png
	@echo
	@echo 'Utterances that the bundled voice was not trained on, vocoded from their mels:'
	@for name in $(DEMO_NAMES); do echo "  samples/wavs/$$name.wav -> demo/$$name.wav"; done
	@echo 'Original above vocoded: demo/spectrograms.png. More of them: samples/index.html'

test: $(VENV)/tested
	+@$(RUN_PARTS)

$(TEST_PARTS):
	@$(PY) -m pytest -q $(SELECT) $(TESTS)

test-fast: $(VENV)/tested
	+@$(RUN_PARTS) SELECT='-m "not slow"'

test-tf1-fast: export SELECT = -m "not slow or tensorflow1"
test-tf1 test-tf1-fast:
	+@python37=; for p in python3.7 $$HOME/.pyenv/versions/3.7.*/bin/python; do \
	    if $$p -c '' 2>/dev/null; then python37=$$p; break; fi; done; \
	if [ -z "$$python37" ]; then \
	    echo 'NOT TESTED under TensorFlow 1.15: there is no Python 3.7 here'; exit 0; fi; \
	$(MAKE) $(VENV_TF1)/tested PYTHON=$$python37 VENV=$(VENV_TF1) && \
	$(RUN_PARTS) VENV=$(VENV_TF1)

lint: $(VENV)/linted
	$(PY) -m ruff check --quiet .
	$(PY) -m mypy

$(VENV)/installed: requirements.txt requirements-base.txt $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --upgrade pip
	$(PIP_INSTALL) -r requirements.txt
	touch $@

$(VENV)/tested: $(VENV)/installed requirements-test.txt
	$(PIP_INSTALL) -r requirements-test.txt
	touch $@

$(VENV)/linted: $(VENV)/installed requirements-lint.txt
	$(PIP_INSTALL) -r requirements-lint.txt
	touch $@

clean:
	rm -rf .venv .venv-newest .venv-tf1 .venv-tf1-newest $(VENV) $(VENV_TF1) .mypy_cache .ruff_cache demo
