"""docs/tour.ipynb runs from its first cell to its last."""
import os
import re

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient


@pytest.mark.slow
def test_tour_runs_and_shows_what_it_says():
    with open(os.path.join(ROOT, 'docs', 'tour.ipynb')) as f:
        notebook = nbformat.read(f, as_version=4)
    assert all(not cell.get('outputs') for cell in notebook.cells)      # nothing is committed
    NotebookClient(notebook, timeout=300, kernel_name='python3',
                   resources={'metadata': {'path': os.path.join(ROOT, 'docs')}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', [])]
    shown = [kind for output in outputs for kind in output.get('data', {})]
    assert shown.count('image/png') == 3 and shown.count('text/html') >= 5     # pictures, players
    printed = ''.join(output.get('text', '') for output in outputs)
    distance = float(re.search(r'distance of the log-mels: (\S+)', printed).group(1))
    assert 0.02 < distance < 0.5
    difference = float(re.search(r'difference from the whole: (\S+)', printed).group(1))
    assert difference < 2e-5
    assert 'trained to step 10' in printed
