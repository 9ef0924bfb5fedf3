# make demo       installs, then vocodes bundled speech with the bundled voice
# make test       installs, then runs the tests
# make test-tf1   runs the tests under TensorFlow 1.15, if a Python 3.7 is found
# make clean      removes what the commands above made
#
# They install into .venv and .venv-tf1. PYTHON=python3.12 chooses the Python, VENV=DIR the folder.

PYTHON ?= python3
VENV ?= .venv
VENV_TF1 ?= .venv-tf1
PY := $(VENV)/bin/python
HEARD := auth-incorrect demo-thanks queue-youarenext tt-weasels

.PHONY: demo test test-tf1 clean

demo: $(VENV)/installed
	$(PY) inference.py --lc $(HEARD:%=samples/wavs/%.wav) --out_dir=demo --mel_correction=16 \
	    --plot=demo/spectrograms.png
	@echo
	@echo 'Utterances that the bundled voice was not trained on, vocoded from their mels:'
	@for name in $(HEARD); do echo "  samples/wavs/$$name.wav -> demo/$$name.wav"; done
	@echo 'Original above vocoded: demo/spectrograms.png. More of them: samples/index.html'

test: $(VENV)/tested
	$(PY) -m pytest -q tests

test-tf1:
	@python37=; for p in python3.7 $$HOME/.pyenv/versions/3.7.*/bin/python; do \
	    if $$p -c '' 2>/dev/null; then python37=$$p; break; fi; done; \
	if [ -z "$$python37" ]; then \
	    echo 'NOT TESTED under TensorFlow 1.15: there is no Python 3.7 here'; exit 0; fi; \
	$(MAKE) $(VENV_TF1)/tested PYTHON=$$python37 VENV=$(VENV_TF1) && \
	$(VENV_TF1)/bin/python -m pytest -q tests

$(VENV)/installed: requirements.txt requirements-base.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/tested: $(VENV)/installed requirements-test.txt
	$(PY) -m pip install --quiet -r requirements-test.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV_TF1) demo
