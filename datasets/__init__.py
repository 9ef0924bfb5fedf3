"""Sound files, mel spectrograms, corpora, and the two input pipelines."""
