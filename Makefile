# make demo       hear it: installs, preprocesses the bundled speech, trains two minutes, vocodes
# make test       installs and runs the tests
# make test-tf1   the same under TensorFlow 1.15 and Python 3.7, where that Python is found
# make clean      removes what these made

PYTHON ?= python3
VENV ?= .venv
VENV_TF1 ?= .venv-tf1
PY := $(VENV)/bin/python
DEMO_STEPS ?= 300

.PHONY: demo test test-tf1 clean

demo: $(VENV)/installed
	$(PY) preprocess_data.py --wave_dir=samples/wavs --mel_dir=demo/mels --data_dir=demo \
	    --preset=small --test_size=4
	$(PY) train.py --filelist=demo/train.scp --wave_dir=samples/wavs --lc_dir=demo/mels \
	    --logdir_root=demo --run_name=run --max_steps=$(DEMO_STEPS) \
	    --hparams=lr_decay_steps=$(DEMO_STEPS),eval_every=100
	$(PY) inference.py --lc $$(sed 's|.*|demo/mels/&.mel|' demo/test.scp) \
	    --restore_from=demo/run --out_dir=demo/vocoded --plot=demo/spectrograms.png
	@echo
	@echo 'Four utterances that the training did not see:'
	@sed 's|.*|  samples/wavs/&.wav -> demo/vocoded/&.wav|' demo/test.scp
	@echo 'Original above vocoded: demo/spectrograms.png'
	@echo 'After two minutes on a minute of speech it mumbles: README.md says how to train a voice.'

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
