"""How fast, against the machine's own matrix products."""
