"""Where to get speech, and how the bundled voice was made."""
