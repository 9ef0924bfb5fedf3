"""Other projects' checkpoints, and PyTorch's files read as data."""
