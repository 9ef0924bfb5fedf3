"""The training graph and the loop that runs it."""
